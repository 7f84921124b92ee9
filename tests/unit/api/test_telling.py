"""mcastd.api.telling: what a selector chooses, told as what it has become; and what all want is made once for all."""

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api.events import Events
from mcastd.api.interfaces import InterfaceView
from mcastd.api.telling import Teller
from mcastd.core.feed import Kind, Lane, Part, UpcallNote
from mcastd.model.errors import McastdError
from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.write import DeleteJoins, DeleteRoutes, PutJoins, PutRoutes, WriteOptions
from tests.fakerouter import Router, route, sg
from tests.fakewatch import FakeDaemon

ALICE, BOB = WriteOptions("alice"), WriteOptions("bob")
JOIN = JoinKey("alice", "eth0", b"\xef\1\1\1", 32, b"", 0)


class Desk:
    """A router, its events, and tellers."""

    def __init__(self) -> None:
        self.router = Router("eth0", "eth1")
        self.daemon = FakeDaemon(self.router.engine).as_port()
        self.events = Events(self.daemon, InterfaceView(self.daemon))

    def teller(self, *, resumed: bool = False, **selector: object) -> Teller:
        """One for those who want these."""
        request = sv.WatchRequest(selector=t.Selector(**selector))  # type: ignore[arg-type]
        return Teller(self.daemon, self.events, request, resumed=resumed)

    def put(self, *numbers: int, owner: str = "alice", cookie: str = "") -> None:
        """Put routes, and have them in the kernel."""
        routes = [route(sg(number), "eth0", "eth1", owner=owner, cookie=cookie) for number in numbers]
        self.router.write(PutRoutes(WriteOptions(owner), routes))
        self.router.settle()

    def end(self, kind: Kind) -> int:
        """Of the log of a kind."""
        return self.router.engine.feed.logs[kind].end

    def part(self, kind: Kind, position: int) -> Part:
        """All that has changed since."""
        part = Lane(self.router.engine.feed.logs[kind], position).take(1000)
        assert part is not None
        return part


@pytest.fixture
def desk() -> Desk:
    """With five routes."""
    made = Desk()
    made.put(*range(5))
    return made


def read(bodies: list[bytes]) -> list[sv.Event]:
    """What a client reads."""
    return list(sv.WatchResponse.FromString(b"".join(bodies)).events)


def told(events: list[sv.Event]) -> list[tuple[str, str]]:
    """Put or deleted, and the group."""
    return [(sv.Event.Type.Name(event.type).removeprefix("TYPE_"), event.route.group) for event in events]


def test_what_all_want_is_made_once(desk: Desk) -> None:
    desk.put(3, cookie="new")
    part = desk.part(Kind.ROUTE, 0)
    one, other = (desk.teller().part(Kind.ROUTE, part) for _ in range(2))
    assert one.bodies is other.bodies
    assert (len(read(one.bodies)), one.coalesced) == (5, 1)


def test_what_some_want_is_chosen(desk: Desk) -> None:
    desk.put(3, 3, cookie="new")
    found = desk.teller(group="239.1.0.2/31").part(Kind.ROUTE, desk.part(Kind.ROUTE, 0))
    assert told(read(found.bodies)) == [("PUT", "239.1.0.2"), ("PUT", "239.1.0.3")]
    assert [event.coalesced for event in read(found.bodies)] == [0, 1]
    assert found.coalesced == 1, "of what it was told"


def test_a_route_that_matches_no_more_is_deleted(desk: Desk) -> None:
    teller = desk.teller(cookie="red")
    for cookie, want in (("red", [("PUT", "239.1.0.1")]), ("blue", [("DELETE", "239.1.0.1")]), ("green", [])):
        begin = desk.end(Kind.ROUTE)
        desk.put(1, cookie=cookie)
        assert told(read(teller.part(Kind.ROUTE, desk.part(Kind.ROUTE, begin)).bodies)) == want
    desk.put(2, cookie="red")
    begin = desk.end(Kind.ROUTE)
    known = desk.teller(cookie="red", resumed=True)
    desk.router.write(DeleteRoutes(ALICE, [sg(2)]))
    desk.router.settle()
    assert told(read(known.part(Kind.ROUTE, desk.part(Kind.ROUTE, begin)).bodies)) == [("DELETE", "239.1.0.2")]


def test_joins_interfaces_and_sources_are_chosen(desk: Desk) -> None:
    desk.router.write(PutJoins(ALICE, [JoinRecord(JOIN)]))
    desk.router.packet(sg(100), "eth0")
    desk.router.packet(sg(101), "eth1")
    desk.router.settle()
    teller = desk.teller(interface="eth0", owner="alice")
    (join,) = read(teller.part(Kind.JOIN, desk.part(Kind.JOIN, 0)).bodies)
    assert join.join.interface == "eth0"
    (interface,) = read(teller.part(Kind.INTERFACE, desk.part(Kind.INTERFACE, 0)).bodies)
    assert interface.interface.name == "eth0"
    (source,) = read(teller.part(Kind.SOURCE, desk.part(Kind.SOURCE, 0)).bodies)
    assert (source.source.group, source.source.interface) == ("239.1.0.100", "eth0")
    begin = desk.end(Kind.JOIN)
    desk.router.write(DeleteJoins(ALICE, [JOIN]))
    (gone,) = read(teller.part(Kind.JOIN, desk.part(Kind.JOIN, begin)).bodies)
    assert gone.type == sv.Event.TYPE_DELETE
    assert not desk.teller(owner="bob").part(Kind.JOIN, desk.part(Kind.JOIN, 0)).bodies


@pytest.mark.parametrize("owner", ["", "alice"])
def test_a_snapshot_leaves_out_what_has_gone(desk: Desk, owner: str) -> None:
    keys = tuple(desk.router.engine.desired.routes)
    desk.router.write(DeleteRoutes(ALICE, [sg(2)]))
    desk.router.settle()
    desk.put(7, owner="bob")
    found = read(desk.teller(owner=owner).snapshot(Kind.ROUTE, (*keys, sg(7)), desk.end(Kind.ROUTE)))
    want = [f"239.1.0.{number}" for number in (0, 1, 3, 4, *(() if owner else (7,)))]
    assert told(found) == [("PUT", group) for group in want]
    gone = (JOIN, (sg(1), "eth0"), "eth9")
    for kind, key in zip((Kind.JOIN, Kind.SOURCE, Kind.INTERFACE), gone, strict=True):
        events = read(desk.teller().snapshot(kind, [key], desk.end(kind)))
        assert [event.type for event in events] == [sv.Event.TYPE_DELETE] * (kind is Kind.INTERFACE)


def test_after_a_snapshot_nothing_older_is_told(desk: Desk) -> None:
    part = desk.part(Kind.ROUTE, 0)
    early, late = desk.teller(), desk.teller()
    before = early.part(Kind.ROUTE, part)
    desk.put(1, cookie="new")
    snapshot = read(late.snapshot(Kind.ROUTE, [sg(1)], desk.end(Kind.ROUTE)))
    assert [event.route.cookie for event in snapshot] == ["new"]
    assert "new" not in {event.route.cookie for event in read(before.bodies)}
    assert "new" in {event.route.cookie for event in read(late.part(Kind.ROUTE, part).bodies)}


def test_upcalls_are_chosen(desk: Desk) -> None:
    notes = [UpcallNote(1.0, UpcallKind.NOCACHE, sg(number), f"eth{number % 2}", b"") for number in range(4)]
    assert [event.upcall.group for event in read(desk.teller(interface="eth1").upcalls(notes))] == ["239.1.0.1", "239.1.0.3"]
    assert len(read(desk.teller(owner="nobody").upcalls(notes))) == 4, "upcalls have no owner"


def test_a_selector_that_cannot_be_is_refused(desk: Desk) -> None:
    with pytest.raises(McastdError) as caught:
        desk.teller(group="239.1.1.1/40")
    assert caught.value.problem.metadata["field"] == "selector.group"
