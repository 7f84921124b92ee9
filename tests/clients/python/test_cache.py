"""A view without a network: streams break anywhere and tokens are forgotten, and it equals what the daemon has."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mcast.client import Delete, Disconnected, Object, Put, Reset, Synced, Unavailable, route, route_id
from mcast.client.cache import Cache
from mcast.client.errors import code_of
from mcast.client.events import Reader
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

NOW = datetime.now(UTC)
BEFORE, AFTER = "before", "after"


class Daemon:
    """What the contract says of Watch, for routes."""

    def __init__(self) -> None:
        self.routes: dict[str, t.Route] = {}
        self._log: list[str] = []
        self._life = 0

    def change(self, group: str, cookie: str | None) -> None:
        """Put or delete a route."""
        if cookie is None:
            self.routes.pop(group, None)
        else:
            self.routes[group] = route(group, "10.0.0.5", "up", cookie=cookie)
        self._log.append(group)

    def restart(self) -> None:
        """Tokens mean nothing any more."""
        self._life += 1

    def stream(self, token: str) -> list[sv.WatchResponse]:
        """What a call answers now, in messages of one event."""
        life, _, at = token.partition(":")
        now = f"{self._life}:{len(self._log)}"
        if token and int(life) == self._life:
            groups = list(dict.fromkeys(self._log[int(at) :]))
            out = []
        else:
            groups = list(self.routes)
            out = [sv.WatchResponse(reset=True)]
        for group in groups:
            there = self.routes.get(group)
            kind = sv.Event.TYPE_PUT if there is not None else sv.Event.TYPE_DELETE
            event = sv.Event(type=kind, route=there or route(group, "10.0.0.5"))
            event.time.GetCurrentTime()
            out.append(sv.WatchResponse(events=[event]))
        return [*out, sv.WatchResponse(synced=True, resume_token=now)]


GROUPS = st.integers(1, 6).map("239.1.1.{}".format)
STEPS = st.one_of(
    st.tuples(st.just("change"), GROUPS, st.sampled_from(["a", "b", None])),
    st.tuples(st.just("restart"), GROUPS, st.none()),
    st.tuples(st.just("read"), st.integers(0, 8), st.none()),
)


def feed(cache: Cache, reader: Reader, messages: list[sv.WatchResponse]) -> list[Put | Delete]:
    return [change for message in messages for event in reader.read(message) for change in cache.apply(event)]


@given(st.lists(STEPS, max_size=40))
def test_a_view_equals_the_list(steps: list[tuple[str, str | int, str | None]]) -> None:
    daemon, cache, reader = Daemon(), Cache(), Reader(sv.WatchRequest())
    told: dict[str, t.Route] = {}
    broken = Disconnected(Unavailable(code_of(14), "gone"))

    def hear(changes: list[Put | Delete]) -> None:
        for change in changes:
            assert isinstance(change.object, t.Route)
            if isinstance(change, Put):
                told[change.object.group] = change.object
            else:
                del told[change.object.group]  # a deletion is told of what was there alone

    for what, value, cookie in steps:
        if what == "change":
            daemon.change(str(value), cookie)
        elif what == "restart":
            daemon.restart()
        else:
            before = dict(cache.now.routes)
            messages = daemon.stream(reader.token)
            hear(feed(cache, reader, messages[: int(value)]))
            if messages[0].reset and int(value) < len(messages):
                assert cache.now.routes == before  # a snapshot that is not whole takes nothing away
            list(cache.apply(broken))
            assert not cache.synced
    hear(feed(cache, reader, daemon.stream(reader.token)))
    assert cache.synced
    assert cache.now.routes == {route_id(one): one for one in daemon.routes.values()}
    assert told == daemon.routes


def test_the_token_covers_what_was_handed_out() -> None:
    reader = Reader(sv.WatchRequest(resume_token=BEFORE))
    message = sv.WatchResponse(events=[sv.Event(type=sv.Event.TYPE_PUT, route=route("239.1.1.1"))] * 2, resume_token=AFTER)
    events = reader.read(message)
    next(events)
    assert reader.request().resume_token == BEFORE
    list(events)
    assert reader.request().resume_token == AFTER
    assert [type(event) for event in reader.read(sv.WatchResponse(reset=True, synced=True))] == [Reset, Synced]
    assert reader.token == ""


def test_kinds_are_kept_apart_and_upcalls_are_told_but_not_kept() -> None:
    cache = Cache()
    objects: list[Object] = [
        t.Interface(name="up"),
        t.Source(group="239.1.1.1", source="10.0.0.5", interface="up"),
        t.Join(interface="up", group="239.1.1.1"),
        sv.CounterSample(key=t.RouteKey(group="239.1.1.1", source="10.0.0.5"), counters=t.Counters(packets=3)),
        t.Upcall(group="239.1.1.1"),
    ]
    told = [change for one in objects for change in cache.apply(Put(one, NOW))]
    assert [change.object for change in told] == objects
    assert [len(kind) for kind in cache.now.all()] == [0, 1, 1, 1, 1]
    assert list(cache.apply(Delete(objects[0], NOW)))
    assert not list(cache.apply(Delete(objects[0], NOW)))


def test_an_upcall_is_told_while_a_snapshot_comes_in() -> None:
    cache = Cache()
    assert not list(cache.apply(Reset()))
    assert [change.object for change in cache.apply(Put(t.Upcall(group="239.1.1.1"), NOW))] == [t.Upcall(group="239.1.1.1")]
    assert not list(cache.apply(Put(t.Interface(name="up"), NOW)))
    assert [change.object for change in cache.apply(Synced())] == [t.Interface(name="up")]
