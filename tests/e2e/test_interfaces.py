"""Interfaces come, go, flap and are renamed: routes wait for them and heal, and no packet leaves where none should."""

import logging
import time

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.e2e.router import PARTIAL, PENDING, PROGRAMMED, Router, group
from tests.testbed import Testbed
from tests.testbed.daemon import route, wait_until

pytestmark = pytest.mark.kernel

_log = logging.getLogger(__name__)


def test_route_heals_within_a_second_after_its_interface_comes(router: Router) -> None:
    sender = router.sender()
    result = router.put(router.route(sender, "down1", "late"))
    assert [change.after.status.state for change in result.changes] == [PARTIAL]
    assert list(router.status(sender).missing_interfaces) == ["late"]
    router.check_leaves(sender, "down1")

    waits = []
    for _ in range(3):
        router.bed.connect(router.bed.namespace("late receiver"), "eth0", router.namespace, "late")
        began = time.monotonic()
        router.wait_state(sender, PROGRAMMED)
        waits.append(time.monotonic() - began)
        router.check_leaves(sender, "down1", "late")
        router.namespace.ip("link del late")
        router.wait_state(sender, PARTIAL)
        router.check_leaves(sender, "down1")
    _log.info("PROGRAMMED %s s after the interface came", waits)
    assert min(waits) < 1  # the best of three: what the machine does beside is not ours


def test_route_waits_for_its_incoming_interface(router: Router) -> None:
    near = router.plug("spare")
    router.rename("spare", "other")
    sender = near.sender(group(router.family))
    router.put(route(sender.group, sender.source, "in2", "down1"))
    assert router.daemon.state(sender.group, sender.source).state == PENDING
    router.check_leaves(sender)

    router.rename("other", "in2")
    wait_until(lambda: router.daemon.state(sender.group, sender.source).state == PROGRAMMED, 20)
    router.check_leaves(sender, "down1")


def test_interface_made_again_under_its_name(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1", "down2"))
    first = router.vifs()
    router.namespace.ip("link del down1")
    router.wait_state(sender, PARTIAL)
    router.check_leaves(sender, "down2")

    router.plug("down1")
    router.wait_state(sender, PROGRAMMED)
    router.check_leaves(sender, "down1", "down2")
    assert router.vifs().keys() == first.keys()


def test_interface_renamed_away_and_back(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1", "down2"))
    router.rename("down2", "elsewhere")
    router.wait_state(sender, PARTIAL)
    assert list(router.status(sender).missing_interfaces) == ["down2"]
    router.check_leaves(sender, "down1")
    router.rename("elsewhere", "down2")
    router.wait_state(sender, PROGRAMMED)

    router.rename("up", "elsewhere")
    router.wait_state(sender, PENDING)
    assert router.kernel() == {}
    router.check_leaves(sender)
    router.rename("elsewhere", "up")
    router.wait_state(sender, PROGRAMMED)
    router.check_leaves(sender, "down1", "down2")


def test_names_exchanged(router: Router) -> None:
    """The route names down1: after the exchange that is the other interface."""
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    behind_first, behind_second = (port.receiver(sender.group) for port in router.star.receivers)
    router.check_leaves(sender, "down1")
    behind_first.wait(sender)
    router.rename("down1", "third")
    router.rename("down2", "down1")
    router.rename("third", "down2")
    router.wait_state(sender, PROGRAMMED)
    wait_until(lambda: list(router.kernel().values()) == [("up", ("down1",))])
    router.check_leaves(sender, "down1")
    behind_second.wait(sender, 20)
    assert behind_first.count(sender) == 20


def test_interface_that_is_down_keeps_its_place(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1", "down2"))
    router.namespace.ip("link set down1 down")
    router.wait_state(sender, PARTIAL)
    assert router.status(sender).last_error.reason == "INTERFACE_DOWN"
    router.check_leaves(sender, "down2")
    router.namespace.ip("link set down1 up")
    router.namespace.wait_running("down1")
    router.wait_state(sender, PROGRAMMED)
    router.check_leaves(sender, "down1", "down2")


def test_interface_moved_out_and_back(router: Router) -> None:
    """It keeps its ifindex on the way, but not its VIF."""
    sender = router.sender()
    router.put(router.route(sender, "down1", "down2"))
    ifindex = router.namespace.ifindex("down1")
    move_out_and_back(router, "down1")
    assert router.namespace.ifindex("down1") == ifindex
    router.wait_state(sender, PROGRAMMED)
    wait_until(lambda: router.vifs().keys() == {"up", "down1", "down2"}, 20)
    router.check_leaves(sender, "down1", "down2")


def move_out_and_back(router: Router, name: str) -> None:
    outside = router.bed.namespace("outside")
    router.namespace.ip(f"link set dev {name} netns /proc/self/fd/{outside.fd}", pass_fds=(outside.fd,))
    here = router.namespace.fd
    outside.ip(f"link set dev {name} netns /proc/self/fd/{here}", pass_fds=(here,))
    router.namespace.ip(f"link set dev {name} up")
    router.namespace.wait_running(name)


def test_hundred_flaps_leak_no_vif(testbed: Testbed) -> None:
    """Both families at once: the making and unmaking of interfaces is what costs the time here."""
    with Router(testbed, Family.IPV4) as router:
        streams = {family: router.star.source.sender(group(family)) for family in Family}
        router.put(*(route(one.group, one.source, "up", "down1", "flap") for one in streams.values()))
        make = "link add name flap type veth peer name palf", "link set palf up", "link set flap up"
        router.namespace.ip(*make)
        wait_until(lambda: set(router.states()) == {"ROUTE_STATE_PROGRAMMED"})

        router.namespace.ip(*(f"link set flap {way}" for _ in range(100) for way in ("down", "up")))
        router.namespace.ip(*(step for _ in range(100) for step in ("link del flap", *make)))

        wait_until(lambda: set(router.states()) == {"ROUTE_STATE_PROGRAMMED"}, 20)
        wait_until(lambda: router.daemon.status().limits.vifs_used == 3, 20)
        router.namespace.wait_running("flap")
        for family, sender in streams.items():
            router.family = family
            assert sorted(router.vifs()) == ["down1", "flap", "up"]
            router.check_leaves(sender, "down1", "flap")
        listed = router.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(), timeout=5).interfaces
        assert {one.name: len(one.vifs) for one in listed if one.vifs} == {"up": 2, "down1": 2, "flap": 2}
