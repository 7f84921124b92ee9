"""A watch goes on over broken streams."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.transport import Connection, Target
from mcastd.cli.ctl.tree import Tree
from mcastd.cli.ctl.watch import LONGEST_PAUSE, watch
from tests.unit.cli.ctl.conftest import Run, find
from tests.unit.cli.ctl.fakeserver import Handler, refuse, serve

Watching = Callable[[Handler], Iterator[Any]]


class Stop(Exception):  # noqa: N818 - no error
    """Ends a watch from inside."""


def event(name: str, token: str = "", **more: Any) -> sv.WatchResponse:
    """One interface that came."""
    events = [sv.Event(type=sv.Event.TYPE_PUT, interface=t.Interface(name=name))]
    return sv.WatchResponse(events=events, resume_token=token, **more)


def test_it_goes_on_with_the_last_token(shipped: Contract, tree: Tree, tmp_path: Path) -> None:
    tokens: list[str] = []
    pauses: list[float] = []
    told: list[str] = []

    def handler(request: sv.WatchRequest, context: grpc.ServicerContext) -> Iterator[sv.WatchResponse]:
        tokens.append(request.resume_token)
        yield event(f"eth{len(tokens)}", f"token {len(tokens)}" if len(tokens) != 2 else "")
        if len(tokens) == 1:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow", "SLOW_CONSUMER")

    with serve(shipped, f"unix:{tmp_path}/w", {"Watch": handler}), Connection(Target(f"unix:{tmp_path}/w")) as connection:
        answers = watch(connection, find(tree, "watch"), sv.WatchRequest(), told.append, pauses.append)
        names = [answer.events[0].interface.name for answer in itertools.islice(answers, 4)]  # type: ignore[attr-defined]
    assert names == ["eth1", "eth2", "eth3", "eth4"]
    assert tokens == ["", "token 1", "token 1", "token 3"]
    assert told[:2] == ["mcastctl: SLOW_CONSUMER: too slow; connecting again", "mcastctl: connected again"]
    assert told[2] == "mcastctl: the daemon has ended the stream; connecting again"
    assert all(pause <= 0.1 for pause in pauses)


def test_pauses_grow_while_nobody_answers(shipped: Contract, tree: Tree, tmp_path: Path) -> None:
    pauses: list[float] = []
    told: list[str] = []

    def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 12:
            raise Stop

    def handler(_request: sv.WatchRequest, context: grpc.ServicerContext) -> Iterator[sv.WatchResponse]:
        refuse(context, grpc.StatusCode.UNAVAILABLE, "on my way out", "SHUTTING_DOWN")
        yield event("never")

    with serve(shipped, f"unix:{tmp_path}/w", {"Watch": handler}), Connection(Target(f"unix:{tmp_path}/w")) as connection:
        connection.on_ready(lambda: None)
        with pytest.raises(Stop):
            list(watch(connection, find(tree, "watch"), sv.WatchRequest(), told.append, sleep))
    assert told == ["mcastctl: SHUTTING_DOWN: on my way out; connecting again"]
    assert max(pauses) <= LONGEST_PAUSE
    assert min(pauses[8:]) >= LONGEST_PAUSE / 2


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT]
)
def test_a_refusal_ends_it(shipped: Contract, tmp_path: Path, command_line: Run, code: grpc.StatusCode) -> None:
    def handler(_request: sv.WatchRequest, context: grpc.ServicerContext) -> Iterator[sv.WatchResponse]:
        refuse(context, code, "no")
        yield event("never")

    with serve(shipped, f"unix:{tmp_path}/w", {"Watch": handler}):
        assert command_line(shipped, "watch", "--address", f"unix:{tmp_path}/w") == (
            64 + code.value[0],
            "",
            f"mcastctl: {code.name}: no\n",
        )


def test_a_daemon_that_was_never_there_ends_it(shipped: Contract, tmp_path: Path, command_line: Run) -> None:
    assert command_line(shipped, "watch", "--address", f"unix:{tmp_path}/none")[0] == 78


def test_events_are_printed_and_losses_told(shipped: Contract, tmp_path: Path, command_line: Run) -> None:
    def handler(_request: sv.WatchRequest, context: grpc.ServicerContext) -> Iterator[sv.WatchResponse]:
        yield event("eth1", reset=True)
        yield event("eth1", synced=True, kernel_upcalls_lost=5)
        refuse(context, grpc.StatusCode.INTERNAL, "broken")

    with serve(shipped, f"unix:{tmp_path}/w", {"Watch": handler}):
        code, out, err = command_line(shipped, "watch", "--address", f"unix:{tmp_path}/w")
        assert code == 77
        assert out == "+ interface  eth1  no  -  0\n~ interface  eth1  no  -  0\n"
        assert err.splitlines() == ["mcastctl: kernel upcalls lost: 5", "mcastctl: INTERNAL: broken"]
        _, out, _ = command_line(shipped, "watch", "--address", f"unix:{tmp_path}/w", "-o", "ndjson")
        assert out.splitlines()[1] == (
            '{"events": [{"type": "TYPE_PUT", "interface": {"name": "eth1"}}], "synced": true, "kernel_upcalls_lost": "5"}'
        )


def test_ctrl_c_is_the_way_to_end_it(
    shipped: Contract, tmp_path: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr("mcastd.cli.ctl.run.watch", interrupted)
    assert command_line(shipped, "watch", "--address", f"unix:{tmp_path}/none") == (0, "", "")
