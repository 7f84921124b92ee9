"""mcastd.api.events: what is put together by hand is what protobuf would make, made once for all, and never older than asked."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import events as events_module
from mcastd.api.events import Events, framed, source_message, together
from mcastd.api.interfaces import InterfaceView
from mcastd.api.ports import CounterSample
from mcastd.core.feed import Kind, Lane, Part, UpcallNote
from mcastd.core.sources import Cause, Source
from mcastd.model.address import pack_address
from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Counters
from mcastd.model.write import DeleteRoutes, PutJoins, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg, template
from tests.fakewatch import FakeDaemon

ALICE = WriteOptions("alice")
KEY = sg(1)


@pytest.fixture
def router() -> Router:
    """A router with one route."""
    made = Router("eth0", "eth1")
    made.write(PutRoutes(ALICE, [route(KEY, "eth0", "eth1", cookie="red")]))
    made.settle()
    return made


@pytest.fixture
def events(router: Router) -> Events:
    """Events of its engine."""
    daemon = FakeDaemon(router.engine).as_port()
    return Events(daemon, InterfaceView(daemon))


def read(*bodies: bytes) -> list[sv.Event]:
    """What a client reads of framed events."""
    return list(sv.WatchResponse.FromString(b"".join(bodies)).events)


def one(body: bytes, coalesced: int = 0) -> sv.Event:
    """What a client reads of one."""
    (event,) = read(framed(body, coalesced))
    return event


def now(events: Events, kind: Kind) -> int:
    """A position from which nothing is too old but what changes from now on."""
    return events._engine.feed.logs[kind].end


# --- the bytes -------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 100, 127, 128, 16383, 16384, 300_000]),
    st.integers(0, 2**33),
    st.booleans(),
)
def test_the_bytes_are_those_of_protobuf(coalesced: int, size: int, seconds: int, deleted: bool) -> None:
    message = t.Route(group="g" * size, status=t.RouteStatus(revision=7))
    made = one(events_module._event("route", message, seconds + 0.5, deleted=deleted), coalesced)
    want = sv.Event(type=sv.Event.TYPE_DELETE if deleted else sv.Event.TYPE_PUT, coalesced=coalesced, route=message)
    want.time.seconds, want.time.nanos = seconds, 500_000_000
    assert made == want
    assert sv.WatchResponse.FromString(framed(want.SerializeToString(), 0)) == sv.WatchResponse(events=[want])
    assert made.SerializeToString(deterministic=True) == want.SerializeToString(deterministic=True)


def test_many_events_and_the_rest_of_a_message() -> None:
    bodies = [events_module._event("interface", t.Interface(name=name)) for name in ("a", "b")]
    rest = sv.WatchResponse(reset=True, synced=True, resume_token="x", kernel_upcalls_lost=3, upcalls_skipped=4)  # noqa: S106
    whole = sv.WatchResponse.FromString(framed(bodies[0], 2) + framed(bodies[1], 0) + rest.SerializeToString())
    assert [(event.interface.name, event.coalesced) for event in whole.events] == [("a", 2), ("b", 0)]
    whole.ClearField("events")
    assert whole == rest


def test_an_event_that_is_now_has_the_time_of_now() -> None:
    before = time.time()
    event = one(events_module._event("interface", t.Interface()))
    assert before - 0.001 <= event.time.ToNanoseconds() / 1e9 <= time.time()


# --- objects ---------------------------------------------------------------------------------------------------------


def test_a_route_as_it_is_and_gone(router: Router, events: Events) -> None:
    event = one(events.route(KEY, router.get(KEY), now(events, Kind.ROUTE)))
    assert event.type == sv.Event.TYPE_PUT
    assert (event.route.group, event.route.cookie, event.route.iif) == ("239.1.0.1", "red", "eth0")
    assert event.route.status.state == t.ROUTE_STATE_PROGRAMMED
    router.write(DeleteRoutes(ALICE, [KEY]))
    gone = one(events.route(KEY, None, now(events, Kind.ROUTE)))
    assert gone.type == sv.Event.TYPE_DELETE
    assert gone.route == t.Route(group="239.1.0.1", source="10.0.0.1"), "key fields alone"


def test_a_template_is_deleted_by_its_whole_key(router: Router, events: Events) -> None:
    made = template("239.1.0.0/16", "10.0.0.0/8", "eth*", "eth1")
    router.write(PutRoutes(ALICE, [made]))
    gone = one(events.unmatched(made.key))
    assert (gone.type, gone.route) == (
        sv.Event.TYPE_DELETE,
        t.Route(group="239.1.0.0/16", source="10.0.0.0/8", iif="eth*"),
    )


def test_an_interface_as_it_is_and_gone(router: Router, events: Events) -> None:
    event = one(events.interface("eth0", 0))
    assert (event.type, event.interface.name, event.interface.up, event.interface.routes) == (1, "eth0", True, 1)
    assert [vif.index for vif in event.interface.vifs] == [0]
    router.write(SetInterface(ALICE, "eth7", True, 5, 0))
    event = one(events.interface("eth7", now(events, Kind.INTERFACE)))
    assert (event.interface.pinned, event.interface.ttl_threshold, event.interface.ifindex) == (True, 5, 0)
    router.unlink("eth1")
    router.tell()
    gone = one(events.interface("eth1", now(events, Kind.INTERFACE)))
    assert (gone.type, gone.interface) == (sv.Event.TYPE_DELETE, t.Interface(name="eth1"))


def test_how_many_routes_use_an_interface_is_counted_anew_when_interfaces_are_told_of(router: Router, events: Events) -> None:
    assert one(events.interface("eth0", 0)).interface.routes == 1
    router.write(PutRoutes(ALICE, [route(sg(2), "eth0")]))
    router.engine.roster.touch_interfaces()
    assert one(events.interface("eth0", now(events, Kind.INTERFACE))).interface.routes == 2


def test_a_source_as_it_is_and_gone(router: Router, events: Events) -> None:
    router.write(SetInterface(ALICE, "eth0", True, None, 0))
    router.settle()
    router.packet(sg(2), "eth0")
    router.settle()
    event = one(events.source((sg(2), "eth0"), now(events, Kind.SOURCE)))
    assert event.source == source_message((sg(2), "eth0"), router.engine.sources.all[sg(2), "eth0"])
    assert event.time == event.source.last_seen
    assert (event.source.cause, event.source.upcalls) == (t.Source.CAUSE_NO_ROUTE, 1)
    gone = one(events.source((sg(3), "eth1"), 0))
    assert gone.type == sv.Event.TYPE_DELETE
    assert gone.source == t.Source(group="239.1.0.3", source="10.0.0.1", interface="eth1")


def test_every_cause_has_the_number_of_the_contract() -> None:
    for cause in Cause:
        message = source_message((KEY, "eth0"), Source(cause, 5.0))
        assert t.Source.Cause.Name(message.cause) == f"CAUSE_{cause.name}"


def test_a_join_as_it_is_and_gone(router: Router, events: Events) -> None:
    key = JoinKey("alice", "none", pack_address("239.9.9.9"), 32, b"", 0)
    record = JoinRecord(key, "red")
    router.write(PutJoins(ALICE, [record]))
    event = one(events.join(key, record, now(events, Kind.JOIN)))
    assert (event.type, event.join.interface, event.join.cookie) == (1, "none", "red")
    assert event.join.error.reason == "NO_SUCH_INTERFACE"
    gone = one(events.join(key, None, 0))
    assert (gone.type, gone.join.owner, gone.join.cookie) == (sv.Event.TYPE_DELETE, "alice", "")


@pytest.mark.parametrize("named", [False, True])
def test_an_upcall(router: Router, events: Events, named: bool) -> None:
    by = template("239.1.0.0/16", "", "eth0")
    upcall = UpcallNote(1234.5, UpcallKind.WRONGVIF, KEY, "eth1", by.key if named else b"")
    event = one(events.upcall(upcall))
    assert (event.type, event.time.ToNanoseconds()) == (sv.Event.TYPE_PUT, 1_234_500_000_000)
    assert (event.upcall.group, event.upcall.source, event.upcall.interface) == ("239.1.0.1", "10.0.0.1", "eth1")
    assert event.upcall.cause == t.Source.CAUSE_WRONG_INTERFACE
    assert event.upcall.HasField("template") is named
    if named:
        assert event.upcall.template == t.RouteKey(group="239.1.0.0/16", iif="eth0")


def test_counters(router: Router, events: Events) -> None:
    counted = {KEY: Counters(10, 1000, 1, 0.0)}
    event = one(events.counters(KEY, router.get(KEY), CounterSample(counted, 1500.0, {}, 0.0)))
    assert event.counters.key == t.RouteKey(group="239.1.0.1", source="10.0.0.1")
    assert (event.counters.counters.packets, event.counters.counters.bytes) == (10, 1000)
    assert event.time == event.counters.counters.sample_time


# --- made once -------------------------------------------------------------------------------------------------------


def test_an_object_is_made_once_for_all_who_follow(router: Router, events: Events) -> None:
    since = now(events, Kind.ROUTE)
    first = events.route(KEY, router.get(KEY), since)
    assert events.route(KEY, router.get(KEY), since) is first
    assert events.interface("eth0", 0) is events.interface("eth0", 0)


def test_what_has_changed_since_is_made_anew(router: Router, events: Events) -> None:
    first = events.route(KEY, router.get(KEY), now(events, Kind.ROUTE))
    router.write(PutRoutes(ALICE, [route(KEY, "eth0", cookie="blue")]))
    router.settle()
    second = one(events.route(KEY, router.get(KEY), now(events, Kind.ROUTE)))
    assert (one(first).route.cookie, second.route.cookie) == ("red", "blue")


def test_a_template_that_comes_to_the_same_is_told_as_it_is_asked_for(router: Router, events: Events) -> None:
    """Its fate, and so the revision of that, is what it was."""
    for oifs in (["none*"], [], ["none?"]):
        made = template("239.1.0.0/16", "", "eth0", *oifs)
        router.write(PutRoutes(ALICE, [made]))
        router.settle()
        event = one(events.route(made.key, router.get(made.key), now(events, Kind.ROUTE)))
        assert [oif.interface for oif in event.route.oifs] == oifs


@pytest.mark.parametrize("name", ["_CACHED_MAX", "_PRESENTED_MAX"])
def test_what_is_kept_is_bounded(router: Router, events: Events, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, name, 4)
    routes: list[Any] = [route(sg(n), "eth0", owner="alice", cookie=str(n)) for n in range(20)]
    router.write(PutRoutes(ALICE, routes))
    router.settle()
    for number in range(20):
        event = one(events.route(sg(number), router.get(sg(number)), now(events, Kind.ROUTE)))
        assert event.route.cookie == str(number)
        assert len(events._cache) <= events_module._CACHED_MAX
        assert events._presented <= events_module._PRESENTED_MAX


# --- parts of rounds -------------------------------------------------------------------------------------------------


def put(router: Router, *numbers: int, cookie: str) -> None:
    """Put routes, and have them in the kernel."""
    router.write(PutRoutes(ALICE, [route(sg(number), "eth0", "eth1", cookie=cookie) for number in numbers]))
    router.settle()


def part_of(router: Router, kind: Kind, position: int = 0, count: int = 1000) -> Part:
    """The part that somebody takes who begins at a position."""
    part = Lane(router.engine.feed.logs[kind], position).take(count)
    assert part is not None
    return part


def cookies(events: Events, part: Part, as_of: int = 0) -> list[str]:
    """Those of the routes that the part is told as."""
    return [event.route.cookie for event in read(*events.part(Kind.ROUTE, part, as_of).bodies)]


def test_a_part_is_made_once_for_all_who_take_it(router: Router, events: Events) -> None:
    put(router, 1, 2, 3, cookie="blue")
    part = part_of(router, Kind.ROUTE)
    chunk = events.part(Kind.ROUTE, part, 0)
    assert [(event.route.cookie, event.coalesced) for event in read(*chunk.bodies)] == [("blue", 1), ("blue", 0), ("blue", 0)]
    assert chunk.coalesced == 1
    assert chunk.as_of == router.engine.feed.logs[Kind.ROUTE].end
    assert events.part(Kind.ROUTE, part, chunk.as_of) is chunk
    assert events.part(Kind.ROUTE, part._replace(at=1, changes=part.changes[1:]), 0) is not chunk


def test_nobody_is_told_of_what_was_before_what_he_knows(router: Router, events: Events) -> None:
    part = part_of(router, Kind.ROUTE)
    assert cookies(events, part) == ["red"]
    put(router, 1, cookie="blue")
    assert cookies(events, part) == ["red"], "the next round tells of it"
    assert cookies(events, part, now(events, Kind.ROUTE)) == ["blue"]
    assert cookies(events, part) == ["blue"]


def test_parts_of_all_kinds(router: Router, events: Events) -> None:
    key = JoinKey("alice", "eth0", b"\xef\1\1\1", 32, b"", 0)
    router.write(PutJoins(ALICE, [JoinRecord(key)]), SetInterface(ALICE, "eth1", True, None, 0))
    router.packet(sg(9), "eth0")
    router.write(DeleteRoutes(ALICE, [KEY]))
    router.settle()
    router.engine.feed.flush_touched()
    for kind, field in ((Kind.ROUTE, "route"), (Kind.INTERFACE, "interface"), (Kind.JOIN, "join"), (Kind.SOURCE, "source")):
        part = part_of(router, kind)
        told = read(*events.part(kind, part, 0).bodies)
        assert {event.WhichOneof("object") for event in told} == {field}
        assert len(told) == len(part.changes)
        assert {event.type for event in told} == {sv.Event.TYPE_DELETE if kind is Kind.ROUTE else sv.Event.TYPE_PUT}


def test_parts_that_are_kept_are_bounded_by_their_size(router: Router, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    put(router, *range(2, 12), cookie="x" * 50)
    monkeypatch.setattr(events_module, "CHUNKS_BYTES", 1000)
    lane = Lane(router.engine.feed.logs[Kind.ROUTE], 0)
    for _ in range(5):
        part = lane.take(2)
        assert part is not None
        for _ in range(2):
            chunk = events.part(Kind.ROUTE, part, now(events, Kind.ROUTE))
            assert list(events._chunks.values())[-1] is chunk, "the oldest go"
            assert events._chunks_bytes == sum(len(body) for kept in events._chunks.values() for body in kept.bodies) <= 1000
            router.engine.feed.routes([KEY])
    monkeypatch.setattr(events_module, "CHUNKS_BYTES", 10)
    assert len(cookies(events, part_of(router, Kind.ROUTE))) == 11, "however large one is"
    assert (events._chunks, events._chunks_bytes) == ({}, 0)


def test_events_are_put_together_to_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MESSAGE_BYTES", 10)
    assert list(together([])) == []
    assert list(together([b"aaaa", b"bbbb", b"cccc", b"d" * 30, b"e"])) == [b"aaaabbbb", b"cccc", b"d" * 30, b"e"]
    assert list(together([b"a" * 10])) == [b"a" * 10]
