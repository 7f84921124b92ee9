"""Several templates for one packet: the most specific wins, in whatever order they came, and no flow suffers from a change."""

import random
from itertools import permutations

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.router import Router, group
from tests.e2e.templates import EVERY_GROUP, prefix, source_prefix, template
from tests.testbed import Sender
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

RATE = 1000
ORDERS = 12
"""Of the 720 in which six templates can come; another dozen in each run."""


def ladder(router: Router) -> list[tuple[t.Route, str]]:
    """Templates that all cover the first packet of group 1, the most specific first, each with the one oif that tells it."""
    family, near = router.family, source_prefix(router.source, 8 if router.family is Family.IPV4 else 64)
    one = group(family, 1)
    return [
        (template(one, "up", "down1", source=near), "down1"),
        (template(one, "up", "down2"), "down2"),
        (template(one, "*p", "down3"), "down3"),
        (template(one, "*", "down1"), "down1"),
        (template(one, "", "down2"), "down2"),
        (template(prefix(family, 1, 8), "up", "down3", source=router.source), "down3"),
    ]


@pytest.fixture
def wide(router: Router) -> Router:
    """A router with a third receiver."""
    router.bed.connect(router.bed.namespace("third"), "eth0", router.namespace, "down3")
    return router


def test_result_does_not_depend_on_the_order_of_insertion(wide: Router) -> None:
    """In any order the most specific wins; as each is deleted in turn, the next one has the flow."""
    rungs = ladder(wide)
    sender = wide.sender(1)
    for order in random.sample(list(permutations(rungs)), ORDERS):
        for at, (one, _) in enumerate(order):
            if at == len(order) // 2:
                sender.send()  # The entry is there before the other half comes.
                wait_until(lambda: bool(wide.kernel()))
            templates.put(wide, one)
        for one, oif in rungs:
            wide.check_leaves(sender, oif, count=3)
            templates.wait_entry(wide, sender, oif)
            child = templates.learned(wide.daemon)[wide.key(sender)]
            assert child.status.template == templates.key(one)
            assert wide.daemon.delete(templates.key(one)).deleted == 1
        wait_until(lambda: templates.packets(wide, sender) < 0 or not wide.kernel()[wide.key(sender)][1])
        templates.flush(wide.daemon)
        assert not wide.kernel()


def keep_flowing(router: Router, sender: Sender, count: int = 200) -> None:
    """Wait until so many more packets of a flow have left."""
    start = router.departures.count(sender)
    assert router.departures.wait_until(lambda: router.departures.count(sender) >= start + count, 10)


def check_nothing_lost(router: Router, sender: Sender) -> None:
    """Every packet of a flow that has ended left the router exactly once."""
    router.departures.wait(sender)
    assert router.departures.missing(sender) == []
    assert router.departures.duplicates(sender) == 0
    assert templates.packets(router, sender) == sender.sent, "the entry was made anew: its counters are gone"


def test_flow_is_handed_over_without_a_lost_packet(router: Router) -> None:
    """By deleting the template that made it, by putting a more specific one, and by deleting an exact route."""
    family = router.family
    wide = template(EVERY_GROUP[family], "", "down2")
    narrow = template(group(family, 1), "up", "down1")
    sender = router.sender(1)
    templates.put(router, wide, narrow)
    templates.check_learned(router, sender, "down1")
    flow = sender.start(RATE)
    keep_flowing(router, sender)
    templates.wait_entry(router, sender, "down1")

    router.daemon.delete(templates.key(narrow))
    templates.wait_entry(router, sender, "down2", seconds=0)
    keep_flowing(router, sender)
    assert templates.learned(router.daemon)[router.key(sender)].status.template == templates.key(wide)

    templates.put(router, narrow)
    templates.wait_entry(router, sender, "down1", seconds=0)
    keep_flowing(router, sender)

    exact = router.route(sender, "down2")
    router.put(exact)
    keep_flowing(router, sender)
    assert router.kernel()[router.key(sender)] == ("up", ("down2",))
    assert not templates.learned(router.daemon)
    router.daemon.delete(t.RouteKey(group=exact.group, source=exact.source))
    templates.wait_entry(router, sender, "down1", seconds=0)
    keep_flowing(router, sender)
    flow.stop()
    check_nothing_lost(router, sender)
    assert router.departures.by_interface(sender).keys() == {"down1", "down2"}


def test_changed_template_changes_its_entries_in_place(router: Router) -> None:
    """Those of flows under way, and those whose flow rests; the kernel counts on."""
    made = template(prefix(router.family, 0, 8), "up", "down1")
    templates.put(router, made)
    flowing, resting = router.sender(1), router.sender(2)
    templates.check_learned(router, resting, "down1")
    templates.check_learned(router, flowing, "down1")
    flow = flowing.start(RATE)
    keep_flowing(router, flowing)
    for oifs in (("down2",), ("down1", "down2"), (), ("down1",)):
        templates.put(router, template(made.group, "up", *oifs))
        templates.wait_entry(router, flowing, *oifs, seconds=0)
        templates.wait_entry(router, resting, *oifs, seconds=0)
        assert templates.packets(router, resting) == 10
        if oifs:
            keep_flowing(router, flowing)
    flow.stop()
    wait_until(lambda: templates.packets(router, flowing) == flowing.sent)
    router.check_leaves(resting, "down1")


def test_entries_follow_interfaces_that_come_and_go(router: Router) -> None:
    """As an exact route's would: the oif is taken out and put back in place."""
    templates.put(router, template(prefix(router.family, 0, 8), "", "down*"))
    sender = router.sender(1)
    templates.check_learned(router, sender, "down1", "down2")
    router.bed.connect(router.bed.namespace("third"), "eth0", router.namespace, "down3")
    templates.wait_entry(router, sender, "down1", "down2", "down3")
    router.namespace.ip("link del dev down2")
    templates.wait_entry(router, sender, "down1", "down3")
    router.rename("down3", "other")
    templates.wait_entry(router, sender, "down1")
    router.check_leaves(sender, "down1")
    templates.check_learned(router, router.sender(2), "down1")
    router.check_leaves(sender, "down1")
    assert templates.packets(router, sender) == 50


def test_entry_goes_with_its_last_template(router: Router) -> None:
    """And with the interface that its packets came in on."""
    made = template(prefix(router.family, 0, 8), "", "down1")
    templates.put(router, made, template(prefix(router.family, 0x100, 8), "", "down2"))
    first, second = router.sender(1), router.sender(0x101)
    templates.check_learned(router, first, "down1")
    templates.check_learned(router, second, "down2")
    router.daemon.delete(templates.key(made))
    wait_until(lambda: router.kernel().keys() == {router.key(second)})
    router.namespace.ip("link del dev up")
    wait_until(lambda: not router.kernel())
    assert not templates.learned(router.daemon)


def test_templates_that_differ_in_iif_alone_are_two(router: Router) -> None:
    """Each deleted by its own iif; without one it is ambiguous."""
    first, second = (template(group(router.family, 1), iif, oif) for iif, oif in (("up", "down1"), ("down2", "down1")))
    templates.put(router, first, second)
    back = router.star.receivers[1].sender(group(router.family, 1))
    templates.check_learned(router, router.sender(1), "down1")
    templates.check_learned(router, back, "down1")
    assert {iif for iif, _ in router.kernel().values()} == {"up", "down2"}
    router.daemon.delete(templates.key(second))
    wait_until(lambda: router.kernel().keys() == {router.key(router.sender(1))})
