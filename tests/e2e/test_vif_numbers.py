"""VIF numbers are few and are used again: never with what an earlier interface of the number was to carry."""

import os
import signal

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.model.interface import VIFS_MAX
from tests.e2e.router import PARTIAL, PROGRAMMED, Router, bulk
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel


def check_number_is_taken_over(router: Router, number: int) -> None:
    """A new interface gets the number of one that has gone, and carries its own stream and no other."""
    old, new = router.sender(1), router.sender(2)
    router.plug("fresh")
    wait_until(lambda: router.daemon.status().limits.vifs_used == 2, 20)
    router.put(router.route(new, "fresh"))
    assert router.vifs()["fresh"] == number
    router.check_leaves(old, "down2")
    router.check_leaves(new, "fresh")


def test_number_of_a_deleted_interface(router: Router) -> None:
    old = router.sender(1)
    router.put(router.route(old, "down1", "down2"))
    number = router.vifs()["down1"]
    router.namespace.ip("link del down1")
    check_number_is_taken_over(router, number)


def test_number_of_an_interface_that_no_route_names_any_more(router: Router) -> None:
    old = router.sender(1)
    router.put(router.route(old, "down1", "down2"))
    number = router.vifs()["down1"]
    router.put(router.route(old, "down2"))
    wait_until(lambda: "down1" not in router.vifs())
    check_number_is_taken_over(router, number)


def test_number_while_many_entries_are_still_to_be_rewritten(router: Router) -> None:
    """Deletion and a route for another interface come at once: the number stays away from it until the last entry is done."""
    routes = list(bulk(router.family, 20_000, router.source, "down1", "down2"))
    router.daemon.replace(routes, options={"owner": "bulk"})
    old, new = router.star.source.sender(routes[-1].group), router.sender(2)
    router.plug("fresh")
    flow = old.start(2000)
    router.departures.wait(old, 10)
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    router.namespace.ip("link del down1")
    answer = router.daemon.routes.PutRoutes.future(rs.PutRoutesRequest(routes=[router.route(new, "fresh")]), timeout=20)
    os.kill(server, signal.SIGCONT)
    assert answer.result().result.created == 1
    router.check_leaves(new, "fresh")
    wait_until(lambda: set(router.kernel().values()) == {("up", ("down2",)), ("up", ("fresh",))})
    sent = flow.stop()
    router.departures.wait_until(lambda: router.departures.by_interface(old)["down2"] == sent)
    assert router.departures.by_interface(old)["fresh"] == 0
    assert router.departures.by_interface(old)["down2"] == sent


def test_number_after_the_server_was_killed_between_deletion_and_rewriting(router: Router) -> None:
    """The kernel's entry still has the bit, and a dump does not show it: the VIF maps that the keeper kept do."""
    old = router.sender(1)
    router.put(router.route(old, "down1", "down2"))
    number = router.vifs()["down1"]
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    router.namespace.ip("link del down1")
    os.kill(server, signal.SIGKILL)
    router.wait_server_after(server)
    check_number_is_taken_over(router, number)


def test_number_of_an_interface_deleted_while_no_server_runs(router: Router) -> None:
    """As above, and the new interface is there before the new server: it comes under the old one's name or another."""
    old = router.sender(1)
    router.put(router.route(old, "down1", "down2"))
    number = router.vifs()["down1"]
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    router.namespace.ip("link del down1")
    for name in ("fresh", "down1"):
        router.bed.connect(router.bed.namespace(f"behind {name}"), "eth0", router.namespace, name)
    os.kill(server, signal.SIGKILL)
    router.wait_server_after(server)
    router.check_leaves(old, "down1", "down2")
    new = router.sender(2)
    router.put(router.route(new, "fresh"))
    assert number in router.vifs().values()
    router.check_leaves(new, "fresh")
    router.check_leaves(old, "down1", "down2")


def test_the_interface_beyond_the_last_number(router: Router) -> None:
    names = [f"port{n}" for n in range(VIFS_MAX + 1)]
    behind = router.bed.namespace("behind the ports")
    router.namespace.ip(
        *(f"link add name {name} type veth peer name {name} netns /proc/self/fd/{behind.fd}" for name in names),
        *(f"link set {name} up" for name in names),
        pass_fds=(behind.fd,),
    )
    behind.ip(*(f"link set {name} up" for name in names))
    router.wait_links(*names)
    senders = [router.sender(n) for n in range(len(names))]
    routes = [router.route(sender, name) for sender, name in zip(senders, names, strict=True)]

    taken, beyond = routes[: VIFS_MAX - 1], routes[VIFS_MAX - 1 :]  # one number is the incoming interface's
    router.put(*taken)
    for sender in senders[: VIFS_MAX - 1]:
        router.wait_state(sender, PROGRAMMED)  # On a busy machine a link may lose and find its carrier meanwhile.
    for one, name in zip(beyond, names[VIFS_MAX - 1 :], strict=True):
        (change,) = router.put(one).changes
        why = change.after.status.last_error
        assert (change.after.status.state, why.reason, why.metadata["interface"]) == (PARTIAL, "VIF_TABLE_FULL", name)
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": VIFS_MAX - 1, "ROUTE_STATE_PARTIAL": 2}
    assert router.daemon.status().limits.vifs_used == VIFS_MAX
    for sender, name in zip(senders[:3], names, strict=False):
        router.check_leaves(sender, name)
    router.check_leaves(senders[VIFS_MAX - 1])

    # Two routes go, and the two that waited heal without another word.
    router.daemon.delete(*(t.RouteKey(group=one.group, source=one.source) for one in taken[:2]))
    for sender in senders[VIFS_MAX - 1 :]:
        router.wait_state(sender, PROGRAMMED)
    for sender, name in [*zip(senders, names, strict=True)][VIFS_MAX - 2 :]:
        router.check_leaves(sender, name)
    for sender in senders[:2]:
        router.check_leaves(sender)
