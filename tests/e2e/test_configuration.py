"""The configuration file of a running daemon: put in force at the start, reloaded as a difference, refused where it is broken."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.api.bench import refusal
from tests.e2e.ctl import Ctl
from tests.e2e.router import Router, group
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = pytest.mark.kernel

ROUTES, JOINS = 10_000, 1_000
RATE = 2_000
"""Packets a second."""

_log = logging.getLogger(__name__)


def name_of(family: Family, number: int) -> str:
    """A group by number, as the daemon writes it."""
    return str(ip_address(group(family, number)))


def route_text(name: str, source: str, *oifs: str, iif: str = "up", **more: str) -> str:
    lines = [f'group = "{name}"', f'source = "{source}"', f'iif = "{iif}"', f"oifs = {list(oifs)}"]
    return "\n".join(["[[route]]", *lines, *(f"{key} = {value}" for key, value in more.items())]) + "\n\n"


def join_text(name: str, interface: str = "up") -> str:
    return f'[[join]]\ninterface = "{interface}"\ngroup = "{name}"\n\n'


class Configured:
    """A router whose daemon has a configuration file."""

    def __init__(self, router: Router, path: Path) -> None:
        self.router = router
        self.path = path

    def write(self, text: str) -> None:
        """Replace the file, as an editor does."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, "utf-8")
        fresh.chmod(0o644)
        fresh.replace(self.path)

    def reload(self, **fields: bool) -> sv.ReloadConfigurationResponse:
        """ReloadConfiguration."""
        return self.router.daemon.daemon.ReloadConfiguration(sv.ReloadConfigurationRequest(**fields), timeout=60)

    def listed(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """What there is: group, owner, state, oifs."""
        return sorted(
            (one.group, one.status.owner, t.RouteState.Name(one.status.state), tuple(o.interface for o in one.oifs))
            for one in self.router.daemon.list_routes()
        )

    def joined(self) -> int:
        """Groups of the joins that the kernel has on the uplink."""
        lines = self.router.namespace.command("ip", "maddr", "show", "dev", "up").splitlines()
        first = "inet  232.8." if self.router.family is Family.IPV4 else "inet6 ff3e::8:"
        return sum(line.strip().startswith(first) for line in lines)

    def hang_up(self) -> None:
        """SIGHUP to the keeper."""
        self.router.daemon.process.send_signal(signal.SIGHUP)

    def wait_log(self, text: str, count: int = 1) -> None:
        """Wait until the log has it so often."""
        wait_until(lambda: self.router.daemon.log().count(text) >= count, 20, self.router.daemon.log)


@pytest.fixture
def configure(testbed: Testbed, family: Family, directory: Path) -> Iterator[Callable[..., Configured]]:
    """Start a router with this configuration."""
    routers: list[Router] = []

    def start(text: str, **options: Any) -> Configured:
        path = directory / "mcastd.toml"
        path.write_text(text, "utf-8")
        path.chmod(0o644)
        router = Router(testbed, family, directory=directory, arguments=("--config", str(path)), **options)
        routers.append(router)
        return Configured(router, path)

    yield start
    for router in routers:
        router.close()


@pytest.fixture
def two(configure: Callable[..., Configured], family: Family) -> Configured:
    """Two routes of the configuration."""
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    return configure("".join(route_text(name_of(family, n), source, "down1") for n in (1, 2)))


def test_the_file_is_in_force_when_the_daemon_is_ready(two: Configured, family: Family) -> None:
    programmed = [(name_of(family, n), "config", "ROUTE_STATE_PROGRAMMED", ("down1",)) for n in (1, 2)]
    assert two.listed() == sorted(programmed)
    assert set(two.router.kernel().values()) == {("up", ("down1",))}
    with two.router.notices() as notices:
        result = two.reload().result
        assert (result.created, result.updated, result.deleted, result.unchanged) == (0, 0, 0, 2)
        assert notices.take() == 0


def test_a_reload_is_one_difference(two: Configured, family: Family) -> None:
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    name = name_of(family, 2)
    text = route_text(name, source, "down2") + route_text(name_of(family, 3), source, "down1")
    two.write(text + "[interface.down1]\npinned = true\nttl_threshold = 3\nrouter_discovery = false\n")
    before = two.listed()
    planned = two.reload(validate_only=True)
    assert two.listed() == before
    done = two.reload()
    for answer in (planned, done):
        result = answer.result
        assert (result.created, result.updated, result.deleted, result.unchanged, result.failed) == (1, 1, 1, 0, 0)
        assert answer.interfaces_changed == 1
        assert len(result.changes) == 3
    assert [one[::3] for one in two.listed()] == sorted([(name, ("down2",)), (name_of(family, 3), ("down1",))])
    listed = two.router.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface="down1"), timeout=10)
    (interface,) = listed.interfaces
    assert (interface.pinned, interface.ttl_threshold) == (True, 3)
    two.write(text)
    assert two.reload().interfaces_changed == 1
    listed = two.router.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface="down1"), timeout=10)
    assert (listed.interfaces[0].pinned, listed.interfaces[0].ttl_threshold) == (False, 1)


def test_sighup_reloads(two: Configured, family: Family) -> None:
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    two.write(route_text(name_of(family, 5), source, "down1", "down2"))
    two.hang_up()
    wait_until(lambda: [one[0] for one in two.listed()] == [name_of(family, 5)], 20, two.router.daemon.log)


def test_a_broken_or_missing_file_changes_nothing(two: Configured, family: Family) -> None:
    before, kernel = two.listed(), two.router.kernel()
    good = two.path.read_text("utf-8")
    with two.router.notices() as notices:
        two.write(good + '[[route]]\ngroup = "10.1.1.1"\n\n[[route]]\ngroop = "x"\n')
        with pytest.raises(grpc.RpcError) as caught:
            two.reload()
        found = refusal(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
        line = str(good.count("\n") + 2)
        assert (found.metadata["file"], found.metadata["line"], found.metadata["key"]) == (str(two.path), line, "route 3.group")
        assert "route 4.groop is unknown" in found.message
        two.hang_up()
        two.wait_log('key="route 3.group"', 2)

        two.path.unlink()
        with pytest.raises(grpc.RpcError) as caught:
            two.reload()
        assert "can't be read" in refusal(caught.value).message
        assert (two.listed(), two.router.kernel()) == (before, kernel)

        # The server alone starts again: what is stored stays in force.
        two.router.wait_server_after(two.router.daemon.kill_server())
        assert (two.listed(), two.router.kernel()) == (before, kernel)
        assert notices.take() == 0
    two.write(good)
    assert two.reload().result.unchanged == 2


def test_a_file_that_the_server_may_not_read_is_named_with_the_remedy(two: Configured) -> None:
    two.path.chmod(0o600)
    with pytest.raises(grpc.RpcError) as caught:
        two.reload()
    message = refusal(caught.value).message
    assert "Permission denied" in message
    assert f"; chmod 640 {two.path}) and enter" in message
    two.path.chmod(0o644)
    assert two.reload().result.unchanged == 2


def test_a_file_that_the_server_may_not_read_keeps_the_daemon_from_starting(testbed: Testbed, directory: Path) -> None:
    """The keeper is root and can read it; the server could not at a reload."""
    path = directory / "mcastd.toml"
    path.write_text("", "utf-8")
    path.chmod(0o600)
    with McastdProcess(testbed.namespace("router"), directory, "--config", str(path), ready=False) as daemon:
        assert daemon.process.wait(20) == os.EX_CONFIG
        assert f"chmod 640 {path}" in daemon.log()


def test_a_daemon_with_a_broken_file_does_not_start(testbed: Testbed, directory: Path) -> None:
    path = directory / "mcastd.toml"
    path.write_text('[[route]]\ngroup = "10.1.1.1"\n[[route]]\ngroup = "239.1.1.1"\niif = ""\nsource = "10.0.0.1"\n', "utf-8")
    with McastdProcess(testbed.namespace("router"), directory, "--config", str(path), ready=False) as daemon:
        assert daemon.process.wait(20) == os.EX_CONFIG
        log = daemon.log()
    assert f"{path}:2: route 1.group '10.1.1.1' is no multicast address" in log
    assert f"{path}:5: route 2.iif '' is empty" in log
    assert "Traceback" not in log


def test_what_others_own_is_refused_and_the_rest_applied(two: Configured, family: Family) -> None:
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    two.router.put(t.Route(group=name_of(family, 7), source=source, iif="up", oifs=[t.Oif(interface="down2")]))
    two.write("".join(route_text(name_of(family, n), source, "down1") for n in (7, 8)))
    result = two.reload().result
    assert (result.created, result.deleted, result.failed) == (1, 2, 1)
    (refused,) = [change for change in result.changes if change.error.reason]
    assert (refused.error.reason, refused.before.group) == ("OWNED_BY_OTHER", name_of(family, 7))
    owners = {one[0]: (one[1], one[3]) for one in two.listed()}
    assert owners == {name_of(family, 7): ("local", ("down2",)), name_of(family, 8): ("config", ("down1",))}
    two.wait_log(f"{two.path}:1")


def test_a_start_without_the_file_forgets_what_it_said(two: Configured, family: Family) -> None:
    two.router.put(two.router.route(9, "down2"))
    two.router.daemon.process.terminate()
    assert two.router.daemon.process.wait(20) == 0
    two.router.start(directory=two.path.parent)
    assert [one[0] for one in two.listed()] == [name_of(family, 9)]
    with pytest.raises(grpc.RpcError) as caught:
        two.reload()
    assert "--config" in refusal(caught.value).message


def test_settings_that_wait_for_a_restart_are_named(two: Configured) -> None:
    good = two.path.read_text("utf-8")
    two.write('[daemon]\nlog_level = "debug"\nidle_timeout = 7\n' + good)
    two.reload()
    two.wait_log("restart mcastd")
    assert "settings=daemon.log_level" in two.router.daemon.log()
    assert "idle_timeout" not in two.router.daemon.log()


def test_mcastctl_reload(two: Configured, family: Family) -> None:
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    two.write(route_text(name_of(family, 6), source, "down1"))
    ctl = Ctl(f"unix:{two.router.daemon.socket}")
    assert name_of(family, 6) in ctl.run("reload", "--dry-run")
    assert name_of(family, 6) not in {one[0] for one in two.listed()}
    two.write("x = 1\n")
    broken = ctl.call("reload")
    assert broken.returncode != 0
    assert f"{two.path}:1" in broken.stderr


@pytest.mark.xdist_group("heavy")
def test_one_changed_line_of_ten_thousand_routes_under_traffic(configure: Callable[..., Configured], family: Family) -> None:
    source = "10.9.9.9" if family is Family.IPV4 else "fd99::9"
    numbers = range(0x10000, 0x10000 + ROUTES)
    routes = [route_text(name_of(family, n), source, "down1") for n in numbers]
    joins = "".join(join_text(name_of(family, 0x80000 + n)) for n in range(JOINS))
    began = time.monotonic()
    made = configure("".join(routes) + joins)
    router = made.router
    started = time.monotonic() - began
    # The stream's own route, from the testbed's source.
    sender = router.sender()
    stream = route_text(sender.group, sender.source, "down1")
    made.write(stream + "".join(routes) + joins)
    assert made.reload().result.created == 1
    assert len(router.kernel()) == ROUTES + 1
    assert made.joined() == JOINS

    receiver = router.star.receivers[0].receiver(sender.group)
    flow = sender.start(RATE)
    receiver.wait(sender, RATE // 10)
    changed = [*routes[:777], route_text(name_of(family, numbers[777]), source, "down2"), *routes[778:]]
    made.write(stream + "".join(changed) + joins)
    with router.notices() as notices:
        began = time.monotonic()
        answer = made.reload()
        took = time.monotonic() - began
        result = answer.result
        assert (result.created, result.updated, result.deleted, result.unchanged) == (0, 1, 0, ROUTES)
        assert (answer.joins_changed, notices.take()) == (0, 1)
        made.write("x = 1\n" + stream)
        with pytest.raises(grpc.RpcError):
            made.reload()
        assert (notices.take(), made.joined()) == (0, JOINS)
    receiver.wait(sender, receiver.count(sender) + RATE // 10)
    flow.stop()
    receiver.wait(sender)
    assert receiver.missing(sender) == []
    _log.info("%d routes and %d joins: started in %.2f s, reloaded in %.2f s", ROUTES, JOINS, started, took)
