"""The stored state is lost while the keeper keeps the kernel's: streams go on, as owner kernel's, until others come."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.ctl import Ctl
from tests.e2e.router import Router, group
from tests.e2e.templates import prefix, template
from tests.netns.memberships import group_table
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

RATE = 1000
"""Packets a second, of each of three streams."""

TREE = 0x300


def delete(state: Path) -> None:
    for path in state.iterdir():
        path.unlink()


def damage(state: Path) -> None:
    with (state / "state.db").open("r+b") as file:
        file.write(os.urandom(8192))


@pytest.fixture
def router(testbed: Testbed, family: Family, directory: Path) -> Iterator[Router]:
    """One whose daemon's directory outlives it, with an exact route, a template, a shared tree, a join and 100 routes beside."""
    with Router(testbed, family, directory=directory, arguments=templates.METRICS) as made:
        made.put(*(made.route(number, "down1", "down2") for number in (1, *range(0x400, 0x464))))
        tree = t.Route(group=group(family, TREE), iif="up", oifs=[t.Oif(interface="down2")], wildcard=t.WILDCARD_SHARED_TREE)
        templates.put(made, template(prefix(family, 0x200, 8), "up", "down*"), tree)
        join = t.Join(interface="up", group=group(family, 1))
        sv_grpc.JoinServiceStub(made.daemon.channel).PutJoins(sv.PutJoinsRequest(joins=[join]), timeout=20)
        yield made


def lose_state(router: Router, how: Callable[[Path], None]) -> None:
    """Kill the server, and spoil what it has stored before the next one reads it."""
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    how(router.daemon.state_dir)
    os.kill(server, signal.SIGKILL)
    router.wait_server_after(server)


@contextmanager
def streams(router: Router) -> Iterator[list[Sender]]:
    """Three streams, by the exact route, the template and the tree; in the end each packet has left where it should."""
    senders = [router.sender(number) for number in (1, 0x201, TREE)]
    flows = [sender.start(RATE) for sender in senders]
    for sender in senders:
        router.departures.wait(sender, 100)
    yield senders
    for flow in flows:
        flow.stop()
    for sender, interfaces in zip(senders, (["down1", "down2"], ["down1", "down2"], ["down2"]), strict=True):
        want = Counter(dict.fromkeys(interfaces, sender.sent))
        router.departures.wait_until(lambda one=sender, want=want: router.departures.by_interface(one) == want)  # type: ignore[misc]
        assert router.departures.by_interface(sender) == want


def owners(router: Router) -> dict[str, int]:
    return {one.name: one.entries for one in router.daemon.status().owners}


@pytest.mark.parametrize("how", [delete, damage])
def test_streams_go_on_without_the_state(router: Router, how: Callable[[Path], None]) -> None:
    joined = group_table(router.namespace, router.family, "up")
    with streams(router), router.notices() as notices:
        before = router.kernel()
        notices.take()
        lose_state(router, how)
        lose_state_again = router.daemon.kill_server()
        router.wait_server_after(lose_state_again)
        assert router.kernel() == before
        assert notices.take() == 0
        routes = router.daemon.list_routes()
        assert {(one.status.owner, one.status.origin) for one in routes} == {("kernel", t.ORIGIN_FOREIGN)}
        assert len(routes) == 101 + 2
        assert owners(router)["kernel"] == len(routes)
        assert group_table(router.namespace, router.family, "up") == joined
        # The template works on, for flows that it has not met yet.
        templates.check_learned(router, router.sender(0x202), "down1", "down2")
        assert "mcastctl route list --match-owner kernel" in router.daemon.log()


def test_an_owner_takes_its_routes_back_in_place(router: Router) -> None:
    lose_state(router, delete)
    with streams(router), router.notices() as notices:
        notices.take()
        result = router.put(router.route(1, "down1", "down2"), owner="sdn")
        assert (result.created, result.updated) == (0, 1)
        assert notices.take() == 0
        assert router.status(1).owner == "sdn"
    assert owners(router) == {"kernel": 102, "sdn": 1}


def test_an_operator_deletes_what_nobody_wants(router: Router) -> None:
    lose_state(router, delete)
    ctl = Ctl(f"unix:{router.daemon.socket}")
    condition = {"code": "ORPHANS", "severity": "warning"}
    assert "kernel" in ctl.run("status")
    assert templates.metric(router, "mcastd_condition", **condition) == 1
    assert ctl.run("route", "list", "-o", "name", "--match-owner", "kernel").count("\n") == 103
    assert "deleted 103" in ctl.call("route", "del", "--all", "--owner", "kernel").stderr
    assert router.kernel() == {}
    ctl.run("join", "del", "up", group(router.family, 1), "--owner", "kernel")
    wait_until(lambda: templates.metric(router, "mcastd_condition", **condition) == 0)
    refused = ctl.call("route", "add", group(router.family, 1), router.source, "--owner", "kernel", "--iif", "up")
    assert "reserved" in refused.stderr
