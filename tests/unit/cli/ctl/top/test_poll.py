"""Asking the daemon: what is asked for, and what becomes of a daemon that goes and comes back."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.top.poll import Methods, Poller, Source
from mcastd.cli.ctl.top.view import Picture
from mcastd.cli.ctl.transport import Connection, Target
from tests.testbed.daemon import wait_until
from tests.unit.cli.ctl.fakeserver import Handler, refuse, serve

Start = Callable[[], None]


class Daemon:
    """Answers with one route whose counters grow by 100 a question."""

    def __init__(self, contract: Contract, address: str) -> None:
        self.asked: list[rs.ListRoutesRequest] = []
        self.refusing = False
        self._contract = contract
        self._address = address
        self._stack = ExitStack()

    def start(self) -> None:
        handlers: dict[str, Handler] = {"ListRoutes": self.routes, "GetStatus": lambda *_: sv.GetStatusResponse(version="9")}
        self._stack.enter_context(serve(self._contract, self._address, handlers))

    def stop(self) -> None:
        self._stack.close()

    def routes(self, request: Any, context: grpc.ServicerContext) -> Iterator[rs.ListRoutesResponse]:
        if self.refusing:
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "not you", "PERMISSION_DENIED")
        self.asked.append(rs.ListRoutesRequest.FromString(request.SerializeToString()))
        one = t.Route(group="232.1.1.1", source="10.0.0.1", iif="up")
        one.status.state = t.ROUTE_STATE_PROGRAMMED
        one.status.counters.packets = 100 * len(self.asked)
        one.status.counters.sample_time.FromSeconds(1000 + len(self.asked))
        yield rs.ListRoutesResponse(routes=[one])


@pytest.fixture
def daemon(shipped: Contract, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(shipped, f"unix:{tmp_path}/d")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def source(shipped: Contract, tmp_path: Path) -> Iterator[Source]:
    with Connection(Target(f"unix:{tmp_path}/d", timeout=5)) as connection:
        yield Source(connection, Methods.of(shipped), None, 1.0)


def test_counters_and_learned_entries_are_asked_for(daemon: Daemon, source: Source) -> None:
    source.ask()
    picture = source.ask()
    assert picture.status.version == "9"
    assert [(one.group, one.packet_rate) for one in picture.flows] == [("232.1.1.1", 100.0)]
    assert daemon.asked[0].counters
    assert daemon.asked[0].learned
    assert daemon.asked[0].max_age.ToMilliseconds() == 500


def test_what_is_chosen_is_passed_on(daemon: Daemon, shipped: Contract, tmp_path: Path) -> None:
    methods = Methods.of(shipped)
    from mcastd.cli.ctl.contract import message_class  # noqa: PLC0415 - of the contract's own pool

    request: Any = message_class(methods.routes.input_type)()
    request.selector.interface = "down*"
    with Connection(Target(f"unix:{tmp_path}/d")) as connection:
        Source(connection, methods, request.selector, 0.2).ask()
    assert daemon.asked[0].selector.interface == "down*"
    assert daemon.asked[0].max_age.ToMilliseconds() == 100


def test_a_daemon_that_goes_and_comes_back(daemon: Daemon, source: Source) -> None:
    told = threading.Event()
    poller = Poller(source, source.ask(), 0.02, told.set)
    try:
        wait_until(lambda: poller.picture().flows[0].packet_rate == 100)
        daemon.stop()
        wait_until(lambda: bool(poller.picture().trouble))
        broken = poller.picture()
        assert broken.trouble.startswith("UNAVAILABLE: ")
        assert broken.flows
        since = broken.since
        told.clear()
        assert told.wait(5)
        assert poller.picture().since == since
        daemon.start()
        wait_until(lambda: not poller.picture().trouble, 10)
    finally:
        poller.end()


def test_a_refusal_is_final(daemon: Daemon, source: Source) -> None:
    poller = Poller(source, source.ask(), 0.02, lambda: None)
    daemon.refusing = True

    def refused() -> bool:
        try:
            poller.picture()
        except CallError as exc:
            return exc.reason == "PERMISSION_DENIED"
        return False

    wait_until(refused)
    poller.end()


def test_nothing_is_told_after_the_end(daemon: Daemon, source: Source) -> None:
    told: list[int] = []
    poller = Poller(source, Picture("x"), 0.01, lambda: told.append(1))
    wait_until(lambda: len(told) > 1)
    poller.end()
    before = len(told)
    asked = len(daemon.asked)
    wait_until(lambda: not poller.alive())
    assert len(told) == before
    assert len(daemon.asked) <= asked + 1
