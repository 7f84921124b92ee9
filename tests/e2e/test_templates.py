"""A new source is forwarded from its first packet on: by templates of every kind, and by shared trees."""

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.router import Router, group
from tests.e2e.templates import LEARNED, SHARED_TREE, TEMPLATE, prefix, source_prefix, template
from tests.testbed import Sender
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

RATE = 1000
COUNT = 500
TRIES = 3


def kinds(router: Router) -> list[t.Route]:
    """Templates of each kind, each for the groups 256 n to 256 n + 255."""
    drop = 8 if router.family is Family.IPV4 else 64
    near = source_prefix(router.source, drop)
    return [
        template(group(router.family, 0x100), "up", "down1"),
        template(group(router.family, 0x200), "u*", "down1"),
        template(group(router.family, 0x300), "", "down1"),
        template(prefix(router.family, 0x400, 8), "up", "down1"),
        template(prefix(router.family, 0x500, 8), "[tuv]p", "down*"),
        template(prefix(router.family, 0x600, 8), "", "*", "!down2"),
        template(group(router.family, 0x700), "up", "down1", source=near),
        template(prefix(router.family, 0x800, 8), "", "down1", source=near),
        template(prefix(router.family, 0x900, 4), "up", "down1", source=router.source),
    ]


def test_new_source_is_forwarded_from_its_first_packet_on(router: Router) -> None:
    """At 1,000 packets a second, each; all at once.

    The kernel keeps four packets until the entry is there, so the answer may take 4 ms; on a machine that is busy otherwise a
    kernel without preemption may hold up even a real-time process for longer. Who loses packets is tried again.
    """
    made = kinds(router)
    templates.put(router, *made)
    listed = {one.group: one for one in router.daemon.list_routes()}
    assert {one.status.state for one in listed.values()} == {TEMPLATE}
    assert not router.kernel()
    senders = {n: router.sender(0x100 * n) for n in range(1, len(made) + 1)}
    todo = list(senders)
    for _ in range(TRIES):
        flows = [senders[n].start(RATE, COUNT) for n in todo]
        assert [flow.wait() for flow in flows] == [COUNT] * len(flows)
        todo = [n for n in todo if not arrived(router, senders[n])]
        for n in todo:
            assert templates.flush(router.daemon, group=senders[n].group) == 1
            senders[n] = router.sender(0x100 * n)
    assert not todo
    for one, sender in zip(made, senders.values(), strict=True):
        oifs = ("down1", "down2") if one.oifs[0].interface == "down*" else ("down1",)
        assert router.departures.by_interface(sender) == dict.fromkeys(oifs, COUNT)
        templates.wait_entry(router, sender, *oifs)
        child = templates.learned(router.daemon, group=sender.group)[router.key(sender)]
        assert (child.iif, child.status.origin, child.status.state) == ("up", LEARNED, t.ROUTE_STATE_PROGRAMMED)
        assert child.status.template == templates.key(one)
        assert tuple(child.status.installed_oifs) == oifs


def arrived(router: Router, sender: Sender) -> bool:
    """Whether all packets of a flow that has ended have left."""
    return router.departures.wait_until(lambda: not router.departures.missing(sender), 2)


def test_iif_named_among_the_oifs_is_one(router: Router) -> None:
    """A glob never takes the iif; a name does, whether the template names its iif or learns it."""
    templates.put(
        router,
        template(group(router.family, 1), "up", "up", "down1"),
        template(group(router.family, 2), "", "up", "down1"),
        template(group(router.family, 3), "", "*"),
    )
    for number, oifs in ((1, ("up", "down1")), (2, ("up", "down1")), (3, ("down1", "down2"))):
        templates.check_learned(router, router.sender(number), *oifs)


def test_shared_tree_loses_nothing_at_full_speed(router: Router) -> None:
    """There is no upcall: the kernel has the entry before the first packet."""
    tree = template(group(router.family), "up", "down1", "down2", wildcard=SHARED_TREE)
    assert not router.put(tree).changes
    receivers = [port.receiver(tree.group) for port in router.star.receivers]
    for source in ("first", "second"):
        sender = router.star.source.sender(tree.group, source=far(router, source))
        sender.send(10_000)
        for receiver in receivers:
            receiver.wait(sender)
            assert receiver.duplicates(sender) == 0
    assert not templates.learned(router.daemon)
    (listed,) = router.daemon.list_routes(counters=True)
    assert listed.status.state == t.ROUTE_STATE_PROGRAMMED
    assert listed.status.counters.packets == 20_000


def far(router: Router, which: str) -> str:
    """Another source's address."""
    host = {"first": 77, "second": 78}[which]
    return f"10.99.0.{host}" if router.family is Family.IPV4 else f"fd99::{host}"


def test_shared_tree_is_bidirectional(router: Router) -> None:
    tree = template(group(router.family), "up", "down1", "down2", wildcard=SHARED_TREE)
    router.put(tree)
    here, back = router.sender(), router.star.receivers[0].sender(tree.group)
    router.check_leaves(here, "down1", "down2")
    flow = back.start(100)  # The kernel reports a source that sends from below, once in 3 s and tree.
    assert router.departures.wait_until(lambda: router.departures.count(back) > 0, 10)
    flow.stop()
    router.check_leaves(back, "up", "down2", count=1000)
    branch = templates.learned(router.daemon)[router.key(back)]
    assert (branch.iif, list(branch.status.installed_oifs)) == ("down1", ["down2", "up"])
    assert branch.status.template == templates.key(tree)
    router.check_leaves(here, "down1", "down2", count=1000)

    router.put(template(tree.group, "up", "down1", wildcard=SHARED_TREE))
    router.check_leaves(back, "up")
    moved = router.star.source.sender(tree.group, source=back.source)
    moved.start(100)
    assert router.departures.wait_until(lambda: router.departures.count(moved) > 0, 10)
    assert router.departures.by_interface(moved).keys() == {"down1"}
    assert router.key(back) not in router.kernel()


def test_shared_tree_changes_in_place(router: Router) -> None:
    tree = template(group(router.family), "up", "down1", wildcard=SHARED_TREE)
    router.put(tree)
    sender = router.sender()
    router.check_leaves(sender, "down1")
    router.put(template(group(router.family), "up", "down2", wildcard=SHARED_TREE))
    router.check_leaves(sender, "down2")
    (listed,) = router.daemon.list_routes(counters=True, max_age={})
    assert listed.status.counters.packets == 40
    router.daemon.delete(templates.key(tree))
    wait_until(lambda: not router.kernel())


@pytest.mark.parametrize("tree_first", [True, False])
def test_shared_tree_and_template_of_one_group_exclude_each_other(router: Router, tree_first: bool) -> None:
    """The template would never see a packet; the one that comes second is refused, and says why."""
    tree = template(group(router.family), "up", "down1", wildcard=SHARED_TREE)
    dead = template(group(router.family), "", "down2")
    first, second = (tree, dead) if tree_first else (dead, tree)
    router.put(first)
    result = router.daemon.put(second)
    assert result.failed == 1
    assert result.changes[0].error.reason == "SHARED_TREE_OVERLAP"
    assert len(router.daemon.list_routes()) == 1
    router.daemon.delete(templates.key(first))
    router.put(second)
    templates.check_learned(router, router.sender(), "down2" if tree_first else "down1")


def test_template_over_shared_tree_gets_the_rest(router: Router) -> None:
    """A prefix that holds the tree's group is no dead template: it has all the other groups."""
    tree = template(group(router.family, 1), "up", "down1", wildcard=SHARED_TREE)
    router.put(template(prefix(router.family, 0, 8), "up", "down2"), tree)
    router.check_leaves(router.sender(1), "down1")
    templates.check_learned(router, router.sender(2), "down2")
