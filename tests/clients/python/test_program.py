"""The protocol of a session without a network: a daemon in memory, streams that break anywhere, operations that are refused."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.client import RouteId, TooManyDeletions, route, route_id
from mcast.client.program import BATCH_OPS, Program
from mcast.client.wanted import encode
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t

Request = rs.ProgramRoutesRequest
Response = rs.ProgramRoutesResponse

BAD = "refused"
"""Cookie of a route that the daemon refuses."""


class Daemon:
    """What the contract says of sessions, of one owner."""

    def __init__(self) -> None:
        self.routes: dict[RouteId, t.Route] = {}
        self.stale: set[RouteId] = set()
        self.deleted = 0
        self.puts = 0
        self._syncing = False
        self._last = 0

    def open(self) -> None:
        """A stream begins."""
        self._syncing, self._last = False, 0
        self.stale.clear()

    def carry_out(self, request: Request) -> Response | None:
        """Carry out one message; its answer."""
        match request.WhichOneof("request"):
            case "sync_begin":
                self._syncing = True
                self.stale = set(self.routes)
                return None
            case "sync_end":
                assert self._syncing, "NO_SESSION"
                return Response(synced=self._sweep(request.sync_end.max_deletions))
        assert 0 < len(request.batch.ops) <= BATCH_OPS
        ack = Response.Ack()
        for op in request.batch.ops:
            assert op.id > self._last
            self._last = op.id
            if reason := self._refusal(op):
                ack.exceptions.add(id=op.id, error=t.Error(code=3, reason=reason, message="no"))
        ack.acked_through = self._last
        return Response(ack=ack)

    def _sweep(self, most: int) -> Response.Synced:
        if most and len(self.stale) > most:
            error = t.Error(code=9, reason="TOO_MANY_DELETIONS", metadata={"would": str(len(self.stale)), "max": str(most)})
            return Response.Synced(entries=len(self.routes), error=error)
        for key in self.stale:
            del self.routes[key]
        deleted = len(self.stale)
        self.deleted += deleted
        self.stale, self._syncing = set(), False
        return Response.Synced(deleted=deleted, entries=len(self.routes))

    def _refusal(self, op: Request.Op) -> str:
        kind = op.WhichOneof("op")
        if kind == "delete":
            key = route_id(op.delete)
            self.routes.pop(key, None)
            self.stale.discard(key)
            return ""
        key = route_id(op.put if kind == "put" else op.patch.key)
        if kind == "patch":
            if key not in self.routes:
                return "NOT_FOUND"
            names = {oif.interface for oif in self.routes[key].oifs} | {oif.interface for oif in op.patch.add_oifs}
            names -= set(op.patch.remove_oifs)
            self.routes[key] = route(key.group, key.source, "up", *sorted(names), cookie=self.routes[key].cookie)
        elif op.put.cookie == BAD:
            return "INVALID_VALUE"
        else:
            self.puts += 1
            self.routes[key] = t.Route.FromString(op.put.SerializeToString())
        self.stale.discard(key)
        return ""


class Wire:
    """Program and daemon, and what is between them."""

    def __init__(self, *, keep: bool = True) -> None:
        self.program = Program(keep=keep)
        self.daemon = Daemon()
        self._requests: deque[Request] = deque()
        self._answers: deque[Response] = deque()
        self.connect()

    def connect(self) -> None:
        """A new stream; what was under way on the one before is lost."""
        self._requests.clear()
        self._answers.clear()
        self.daemon.open()
        self.program.begin()

    def send(self) -> bool:
        """One message leaves; whether there was one."""
        request = self.program.next()
        if request is not None:
            self._requests.append(Request.FromString(request.SerializeToString()))
        return request is not None

    def work(self) -> bool:
        """The daemon carries one out."""
        if self._requests and (answer := self.daemon.carry_out(self._requests.popleft())) is not None:
            self._answers.append(answer)
            return True
        return bool(self._requests)

    def hear(self) -> bool:
        """One answer arrives."""
        if self._answers:
            self.program.take(self._answers.popleft())
            return True
        return False

    def settle(self) -> None:
        """All of it."""
        while self.send() or self.work() or self.hear():
            pass
        assert self.program.acked == self.program.last_id
        assert self.program.pending == 0

    def wanted(self) -> set[bytes]:
        """What the program would say again."""
        return set(self.program._wanted.routes.values())

    def there(self) -> set[bytes]:
        """What the daemon has."""
        return {encode(one) for one in self.daemon.routes.values()}


def one(number: int, *oifs: str, cookie: str = "") -> t.Route:
    return route(f"239.1.1.{number}", "10.0.0.5", "up", *(oifs or ("down1",)), cookie=cookie)


def key(number: int) -> t.RouteKey:
    return t.RouteKey(group=f"239.1.1.{number}", source="10.0.0.5")


def patch(number: int, add: str, remove: str) -> t.RoutePatch:
    return t.RoutePatch(key=key(number), add_oifs=[t.Oif(interface=add)], remove_oifs=[remove])


NUMBERS = st.integers(0, 7)
NAMES = st.sampled_from(["down1", "down2", "down3"])
OPS = st.one_of(
    st.tuples(st.just("put"), NUMBERS, NAMES),
    st.tuples(st.just("patch"), NUMBERS, NAMES),
    st.tuples(st.just("delete"), NUMBERS, NAMES),
    st.tuples(st.just("sync"), NUMBERS, NAMES),
    st.tuples(st.sampled_from(["send", "work", "hear", "break"]), NUMBERS, NAMES),
)


def ask(wire: Wire, model: dict[int, tuple[str, ...]], what: str, number: int, name: str) -> None:
    """Ask for something, and note what must come of it."""
    program = wire.program
    match what:
        case "put":
            program.put(one(number, name))
            model[number] = (name,)
        case "patch" if number in model:  # one that is refused has a test of its own
            program.patch(patch(number, name, "down1" if name != "down1" else "down2"))
            gone = "down1" if name != "down1" else "down2"
            model[number] = tuple(sorted({*model[number], name} - {gone}))
        case "delete":
            program.delete(key(number))
            model.pop(number, None)
        case "sync":
            wanted = [one(n, name) for n in range(number)]
            program.sync({route_id(route): encode(route) for route in wanted}, 0)
            model.clear()
            model.update(dict.fromkeys(range(number), (name,)))
        case "send":
            wire.send()
        case "work":
            wire.work()
        case "hear":
            wire.hear()
        case "break":
            wire.connect()


@pytest.mark.parametrize("keep", [True, False])
@given(steps=st.lists(OPS, max_size=60))
def test_what_is_asked_for_is_there_wherever_streams_break(keep: bool, steps: list[tuple[str, int, str]]) -> None:
    wire, model = Wire(keep=keep), dict[int, tuple[str, ...]]()
    for step in steps:
        ask(wire, model, *step)
    wire.settle()
    have = {key.group: tuple(sorted(oif.interface for oif in one.oifs)) for key, one in wire.daemon.routes.items()}
    assert have == {f"239.1.1.{number}": oifs for number, oifs in model.items()}
    if keep:
        assert {t.Route.FromString(data).group for data in wire.wanted()} == have.keys()


@given(steps=st.lists(OPS, max_size=60))
def test_a_session_that_keeps_restores_what_the_daemon_has_lost(steps: list[tuple[str, int, str]]) -> None:
    wire, model = Wire(), dict[int, tuple[str, ...]]()
    for step in steps:
        ask(wire, model, *step)
    wire.settle()
    wire.daemon = Daemon()
    wire.connect()
    wire.settle()
    assert {key.group for key in wire.daemon.routes} == {f"239.1.1.{number}" for number in model}


@given(steps=st.lists(st.tuples(st.sampled_from(["put", "bad", "delete", "send", "work", "hear"]), NUMBERS, NAMES), max_size=60))
def test_what_was_refused_is_not_wanted(steps: list[tuple[str, int, str]]) -> None:
    wire = Wire()
    for what, number, name in steps:
        match what:
            case "bad":
                wire.program.put(one(number, name, cookie=BAD))
            case _:
                ask(wire, {}, what, number, name)
    wire.settle()
    assert wire.wanted() == wire.there()


def test_a_restart_of_either_side_deletes_nothing_and_names_all() -> None:
    wire = Wire()
    wire.program.sync({route_id(r): encode(r) for r in (one(n) for n in range(8))}, 0)
    wire.settle()
    wire.daemon.puts = 0
    wire.connect()
    wire.settle()
    assert (wire.daemon.deleted, wire.daemon.puts) == (0, 8)


def test_without_a_sync_nothing_is_deleted_that_others_wrote_before() -> None:
    wire = Wire()
    wire.daemon.routes[route_id(one(7))] = one(7)
    wire.program.put(one(1))
    wire.settle()
    wire.connect()
    wire.settle()
    assert len(wire.daemon.routes) == 2


def test_a_guard_holds_over_a_break() -> None:
    wire = Wire()
    for number in range(5):
        wire.daemon.routes[route_id(one(number))] = one(number)
    sync = wire.program.sync({}, 3)
    wire.send()
    wire.connect()
    wire.settle()
    with pytest.raises(TooManyDeletions) as caught:
        sync.outcome()
    assert (caught.value.would, caught.value.max) == (5, 3)
    assert len(wire.daemon.routes) == 5
    wire.connect()  # and the next replay does not do what was refused
    wire.settle()
    assert len(wire.daemon.routes) == 5
    assert isinstance(wire.program.replay_error, TooManyDeletions)


def test_what_was_deleted_while_there_was_no_stream_is_no_surprise() -> None:
    wire = Wire()
    wire.program.sync({route_id(r): encode(r) for r in (one(n) for n in range(8))}, 1)
    wire.settle()
    for number in range(8):
        wire.program.delete(key(number))
    wire.connect()
    wire.settle()
    assert wire.daemon.routes == {}


def test_an_earlier_id_is_not_acknowledged_before_the_replay_is() -> None:
    wire = Wire()
    for number in range(4):
        wire.program.put(one(number))
    wire.settle()
    last = 0
    for n in range(3 * BATCH_OPS):
        last = wire.program.put(route(f"239.2.{n >> 8}.{n & 255}", "10.0.0.5", "up"))
    wire.connect()
    wire.send()
    wire.work()
    wire.hear()
    assert wire.program.acked < last
    wire.settle()
    assert wire.program.acked >= last


def test_a_template_is_found_without_its_iif() -> None:
    wire = Wire()
    template = route("239.0.0.0/8", "", "up", "down1")
    wire.program.put(template)
    wire.program.patch(t.RoutePatch(key=t.RouteKey(group="239.0.0.0/8"), add_oifs=[t.Oif(interface="down2")]))
    (data,) = wire.wanted()
    assert [oif.interface for oif in t.Route.FromString(data).oifs] == ["down1", "down2"]
    wire.program.delete(t.RouteKey(group="239.0.0.0/8"))
    assert wire.wanted() == set()


@pytest.mark.parametrize(
    "written,canonical",
    [
        (("FF3E:0::1", "FD00::01"), ("ff3e::1", "fd00::1", "")),
        (("239.1.1.1/32", "10.0.0.5/32"), ("239.1.1.1", "10.0.0.5", "")),
        (("ff3e::/32", "fd00::1/128"), ("ff3e::/32", "fd00::1", "up")),
        (("239.1.1.1", ""), ("239.1.1.1", "", "up")),
        (("rubbish/x", "::::"), ("rubbish/x", "::::", "up")),
    ],
)
def test_ids_are_canonical(written: tuple[str, str], canonical: tuple[str, str, str]) -> None:
    assert route_id(route(*written, "up")) == RouteId(0, *canonical)


def test_large_messages_are_divided() -> None:
    wire = Wire()
    big = [route(f"239.1.{n >> 8}.{n & 255}", "10.0.0.5", "up", *(f"very-long-{m:05}" for m in range(250))) for n in range(1500)]
    for route_ in big:
        wire.program.put(route_)
    wire.connect()
    sizes = []
    while (request := wire.program.next()) is not None:
        sizes.append(request.ByteSize())
    assert max(sizes) < 4 << 20
    assert sum(sizes) > 4 << 20
