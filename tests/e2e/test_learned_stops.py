"""Stop filters: unwanted traffic causes no more upcalls, and wanted traffic is never caught in one."""

from collections.abc import Iterator

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import Router, group
from tests.e2e.templates import EVERY_GROUP, SHARED_TREE, STOP, metric, prefix, template
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def deaf(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router that lets unrouted traffic alone."""
    with open_directory() as directory:
        (directory / "config.toml").write_text('[daemon]\nunrouted = "ignore"\n')
        arguments = ("--config", str(directory / "config.toml"), *templates.METRICS)
        with Router(testbed, family, directory=directory, arguments=arguments) as router:
            yield router


def test_unwanted_traffic_is_stopped_and_causes_one_upcall(testbed: Testbed, family: Family) -> None:
    with Router(testbed, family, arguments=templates.METRICS) as router:
        templates.pin(router.daemon, "up")
        sender = router.sender(1)
        router.check_leaves(sender, count=1)
        templates.wait_entry(router, sender)
        assert templates.learned(router.daemon)[router.key(sender)].status.origin == STOP
        before = metric(router, "mcastd_upcalls_total", kind="nocache")
        router.check_leaves(sender, count=1000)
        assert metric(router, "mcastd_upcalls_total", kind="nocache") == before
        assert templates.packets(router, sender) > 1000


def test_unwanted_traffic_is_let_alone_where_the_policy_says_so(deaf: Router) -> None:
    templates.pin(deaf.daemon, "up")
    before = metric(deaf, "mcastd_upcalls_total", kind="nocache")
    sender = deaf.sender(1)
    deaf.check_leaves(sender, count=1)
    wait_until(lambda: metric(deaf, "mcastd_upcalls_total", kind="nocache") > before)
    assert not deaf.kernel()
    assert not templates.learned(deaf.daemon)
    deaf.put(deaf.route(sender, "down1"))
    deaf.departures.wait(sender)  # It had waited in the kernel all the time.


def unblockers(router: Router) -> list[t.Route]:
    """What may come to cover the stopped groups 1, 2 and so on."""
    family = router.family
    return [
        router.route(1, "down1"),
        template(group(family, 2), "up", "down1"),
        template(group(family, 3), "", "down1"),
        template(prefix(family, 0x104, 4), "u*", "down1"),
        template(EVERY_GROUP[family], "", "down1", source=router.source),
        template(group(family, 6), "up", "down1", wildcard=SHARED_TREE),
    ]


def test_what_covers_stopped_traffic_unblocks_it_at_once(router: Router) -> None:
    """The answer to the write comes when the kernel forwards; nothing waits for a timeout."""
    templates.pin(router.daemon, "up")
    numbers = [1, 2, 3, 0x104, 0x205, 6]
    senders = [router.sender(number) for number in numbers]
    for sender in senders:
        router.check_leaves(sender, count=1)
        templates.wait_entry(router, sender)
    assert {one.status.origin for one in templates.learned(router.daemon).values()} == {STOP}
    shared = senders.pop()
    *others, tree = unblockers(router)
    router.put(tree)
    router.check_leaves(shared, "down1")
    for sender, one in zip(senders, others, strict=True):
        router.put(one)
        router.check_leaves(sender, "down1", count=1)
        templates.wait_entry(router, sender, "down1")
        router.check_leaves(sender, "down1")
    assert STOP not in {one.status.origin for one in templates.learned(router.daemon).values()}


def test_template_elsewhere_removes_the_stop_filter_here(router: Router) -> None:
    """A stop filter would take the packets away that the template is for, should the source move there."""
    templates.pin(router.daemon, "up", "down2")
    sender = router.sender(1)
    router.check_leaves(sender, count=1)
    templates.wait_entry(router, sender)
    templates.put(router, template(group(router.family, 1), "down2", "down1"))
    assert not router.kernel()
    moved = router.star.receivers[1].sender(sender.group, source=sender.source)
    router.check_leaves(moved, "down1", count=1)
    templates.wait_entry(router, sender, "down1", iif="down2")


@pytest.mark.parametrize("shared", [False, True], ids=["template", "tree"])
def test_stray_packets_make_no_stop_filter(router: Router, shared: bool) -> None:
    """On the wrong interface, before, during and after the flow: nothing of it is lost."""
    wildcard = SHARED_TREE if shared else t.WILDCARD_TEMPLATE
    one = template(group(router.family, 1), "up", "down1", wildcard=wildcard)
    router.put(one)
    templates.pin(router.daemon, "down2")
    sender = router.sender(1)
    stray = router.star.receivers[1].sender(sender.group, source=sender.source)
    stray.send(20)
    flow = sender.start(1000, 1000)
    wait_until(lambda: router.departures.count(sender) > 200)
    stray.send(20)
    assert flow.wait() == 1000
    router.departures.wait(sender)
    assert router.departures.by_interface(sender) == {"down1": 1000}
    stray.send(20)
    again = router.star.source.sender(sender.group, source=sender.source)
    router.check_leaves(again, "down1", count=4)
    templates.flush(router.daemon)
    stray.send(20)
    router.check_leaves(again, "down1", count=4)
    assert router.departures.by_interface(stray) == {}
    assert all(oifs for _, oifs in router.kernel().values())
