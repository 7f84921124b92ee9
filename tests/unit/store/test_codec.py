"""Records: what goes in comes out, and nothing else ever does."""

import json
import struct
from collections.abc import Sequence
from zlib import crc32

import pytest

from mcastd.model.address import exact_key
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, Lease, OnExpiry, OwnerRecord, Pin
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.store import codec
from mcastd.store.codec import DamagedRecord, Interner, checksum_of, decode, encode, pieces
from tests.fakerouter import template

PATHS = Paths("eth0", (Oif("eth1"), Oif("vlan*", 7)))


def key(number: int, *, ipv6: bool = False) -> bytes:
    packed = number.to_bytes(4, "big")
    return (
        exact_key(0, b"\xff\x0e" + bytes(10) + packed, bytes(16)) if ipv6 else exact_key(0, b"\xe8" + packed[1:], b"\x0a\0\0\1")
    )


def plain(intent: Intent) -> tuple[object, ...]:
    puts = [(r.key, r.paths.iif, r.paths.oifs, r.owner, r.cookie, r.monitored, r.revision) for r in intent.puts]
    return puts, intent.deletes, intent.owners, intent.settings


def back(intent: Intent) -> Intent:
    return decode(encode(intent, b"here"), b"here", Interner())


def craft(header: object, columns: bytes = b"") -> bytes:
    """Make a record with a right checksum."""
    text = json.dumps(header).encode()
    body = struct.pack("<I", len(text)) + text + columns
    return b"mcr\x01" + struct.pack("<I", crc32(body, crc32(b"here"))) + body


def test_all_of_an_intent_comes_back() -> None:
    intent = Intent(
        puts=[
            Route(key(1), PATHS, "ctl", "a ☃ cookie", True, 2**64 - 1),
            Route(key(2), Paths("eth1", ()), "config", "", False, 0),
            Route(key(2), PATHS, "ctl", "later", False, 5),
        ],
        deletes=[key(8), key(9)],
        owners=[OwnerRecord("ctl", 2**64 - 1, 7)],
        settings=[
            InterfaceSettings("eth0", "ctl", 3, 9, (Pin(0, True, 7), Pin(254, False, 9))),
            InterfaceSettings("eth0", "ctl"),
        ],
    )
    assert plain(back(intent)) == plain(intent)


def test_leases_and_who_wrote_a_route_come_back() -> None:
    lease = Lease(120.5, OnExpiry.WITHDRAW)
    owners = [OwnerRecord("sdn", 7, 9, lease, 1e9 + 0.25, True), OwnerRecord("old", 1, 2), OwnerRecord("up", 0, 3, lease)]
    puts = [Route(key(1), PATHS, "sdn", session=5), Route(key(2), PATHS, "sdn"), template("239.0.0.0/8", "", "a")]
    puts[2].session = 3
    found = back(Intent(puts=puts, owners=owners))
    assert found.owners == owners
    assert [(one.key, one.session) for one in found.puts] == [(puts[0].key, 1), (puts[1].key, 0), (puts[2].key, 1)]


def test_what_lasts_as_long_as_the_server_is_not_stored() -> None:
    up = OwnerRecord("up", 0, 3, Lease(1.0, OnExpiry.RETAIN), session=8, replaying=8, generation=4)
    assert back(Intent(owners=[up])).owners == [OwnerRecord("up", 0, 3, Lease(1.0, OnExpiry.RETAIN))]


JOINS = [
    JoinRecord(JoinKey("ctl", "vlan*", b"\xef\1\0\0", 22, b"", 0), "a ☃ cookie", 2**64 - 1),
    JoinRecord(JoinKey("config", "eth0", b"\xff\x3e" + bytes(14), 128, b"\x20" + bytes(15), 120)),
]


def test_joins_come_back() -> None:
    intent = Intent(join_puts=JOINS, join_deletes=[JOINS[0].key, JOINS[1].key])
    found = back(intent)
    assert (found.join_puts, found.join_deletes) == (JOINS, [one.key for one in JOINS])
    assert plain(found) == plain(Intent())


def test_a_route_that_joins_comes_back() -> None:
    template_key = template("239.0.0.0/8", "", "a").key
    puts = [
        Route(key(1), PATHS, "ctl"),
        Route(key(2), PATHS, "ctl", revision=3, join=True),
        Route(key(3, ipv6=True), PATHS, "ctl", revision=5),
        Template(template_key, PATHS, "ctl", join=True),
        Template(template_key, PATHS, "ctl"),
    ]
    found = back(Intent(puts=puts))
    assert [route.join for route in found.puts] == [False, True, False, True, False]
    assert [route.revision for route in found.puts] == [0, 3, 5, 0, 0]
    assert back(Intent(puts=[Route(key(1), PATHS, "ctl", join=True)])).puts[0].join


def test_a_record_without_joins_is_read_as_before() -> None:
    """Records written before there were joins: routes do not join, templates have eight attributes."""
    route, made = Route(key(1), PATHS, "ctl"), template("239.0.0.0/8", "", "a")
    record = encode(Intent(puts=[route]), b"here")
    assert b"join" not in record
    paths = [made.paths.iif, made.paths.oifs]
    old = craft({"template_puts": [[made.key.hex(), paths, "ctl", "", False, 7, 0.0, False]]})
    (found,) = decode(old, b"here", Interner()).puts
    assert (found.key, found.join, found.revision) == (made.key, False, 7)


def test_joins_are_cut_into_pieces_that_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ROUTES_MAX", 1)
    keys = [one.key for one in JOINS]
    found = list(pieces([Intent(join_puts=JOINS, join_deletes=keys)]))
    assert [(one.join_deletes, one.join_puts) for one in found] == [
        ([keys[0]], []),
        ([keys[1]], []),
        ([], [JOINS[0]]),
        ([], [JOINS[1]]),
    ]
    monkeypatch.undo()
    order = [Intent(join_puts=JOINS[:1]), Intent(join_deletes=keys[:1]), Intent(join_puts=JOINS[1:])]
    found = list(pieces(order))
    assert [(one.join_deletes, one.join_puts) for one in found] == [([], JOINS[:1]), (keys[:1], JOINS[1:])]


def test_router_discovery_comes_back_by_position() -> None:
    """A record may hold several words of one owner on one interface, in order."""
    settings = [
        InterfaceSettings("eth0", "ctl", 3, 9, (Pin(0, True, 7),), router_discovery=True, discovery_revision=4),
        InterfaceSettings("eth0", "ctl", router_discovery=False, discovery_revision=5),
        InterfaceSettings("eth1", "config"),
    ]
    assert back(Intent(settings=settings)).settings == settings


def test_a_record_without_router_discovery_is_read_as_before() -> None:
    record = encode(Intent(settings=[InterfaceSettings("eth0", "ctl", 3, 9)]), b"here")
    assert b"discovery" not in record
    old = craft({"settings": [["eth0", "ctl", 3, 9, [[0, True, 7]]]]})
    (found,) = decode(old, b"here", Interner()).settings
    assert found == InterfaceSettings("eth0", "ctl", 3, 9, (Pin(0, True, 7),))
    with pytest.raises(DamagedRecord):
        decode(craft({"settings": [["eth0", "ctl", 3, 9, []]], "router_discovery": []}), b"here", Interner())


def test_templates_come_back() -> None:
    """They stand between exact routes, in both families and of any lengths."""
    puts = [
        template("239.1.0.0/16", "", "eth0", "eth1", "vlan*/7"),
        Route(key(1), PATHS, "ctl", "a", False, 3),
        template("ff3e::/64", "2001:db8::/32", "", "!eth1", "eth*", owner="bob", table=7),
        template("239.1.1.1", "", "eth0", "eth1", shared_tree=True),
        Template(template("239.2.2.2", "", "é*").key, PATHS, "ctl", "☃", True, 2**63, 2.5),
    ]
    deletes = [key(8), template("239.1.0.0/16", "", "eth0").key, key(9), template("ff00::/8", "", "").key]
    found = back(Intent(puts=puts, deletes=deletes))
    assert sorted(plain(found)[0]) == sorted(plain(Intent(puts=puts))[0])  # type: ignore[call-overload]
    assert sorted(found.deletes) == sorted(deletes)
    by_key = {one.key: one for one in found.puts}
    for one in puts:
        assert type(by_key[one.key]) is type(one)
        assert by_key[one.key].same_intent(one)
    last = by_key[puts[-1].key]
    assert isinstance(last, Template)
    assert (last.idle_timeout, last.revision, last.shared_tree) == (2.5, 2**63, False)


def test_of_two_puts_of_a_template_the_later_stays_the_later() -> None:
    puts: list[Route] = [template("239.1.0.0/16", "", "eth0", oif) for oif in ("eth1", "eth2", "eth3")]
    assert [one.paths.oifs for one in back(Intent(puts=puts)).puts] == [one.paths.oifs for one in puts]


def test_families_are_parted_and_each_keeps_its_order() -> None:
    puts = [Route(key(at % 3, ipv6=at % 2 == 1), PATHS, "ctl", str(at)) for at in range(20)]
    found = back(Intent(puts=puts, deletes=[key(1, ipv6=True), key(1)]))
    assert [r.cookie for r in found.puts] == [str(at) for at in (*range(0, 20, 2), *range(1, 20, 2))]
    assert {r.cookie: r.key for r in found.puts} == {r.cookie: r.key for r in puts}
    assert found.deletes == [key(1), key(1, ipv6=True)]


@pytest.mark.parametrize("distinct", [1, 2, 256, 257, 65_536, 65_537])
def test_any_number_of_different_values(distinct: int) -> None:
    puts = [Route(key(at), Paths(f"eth{at % distinct}", ()), f"o{at % distinct}", f"c{at % distinct}") for at in range(65_540)]
    assert plain(back(Intent(puts=puts))) == plain(Intent(puts=puts))


def test_equal_values_come_back_as_one_object() -> None:
    interner = Interner()
    records = [encode(Intent(puts=[Route(key(at), PATHS, "ctl")]), b"here") for at in range(3)]
    found = [route for record in records for route in decode(record, b"here", interner).puts]
    assert len({id(route.paths) for route in found}) == 1
    assert len({id(route.owner) for route in found}) == 1


def test_a_route_costs_little() -> None:
    for ipv6, most in ((False, 14), (True, 38)):
        puts = [
            Route(key(at, ipv6=ipv6), Paths(f"eth{at % 8}", (Oif("vlan1"),)), "ctl", "", False, 1 << 40) for at in range(1_000)
        ]
        assert len(encode(Intent(puts=puts), b"here")) / len(puts) < most


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="neither 12 nor 36"):
        encode(Intent(deletes=[b"short"]), b"here")


def test_a_record_in_another_place_is_damaged() -> None:
    record = encode(Intent(deletes=[key(1)]), b"here")
    with pytest.raises(DamagedRecord, match="checksum"):
        decode(record, b"there", Interner())


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    record = encode(Intent(puts=[Route(key(1), PATHS, "ctl")]), b"here")
    for at in range(len(record) * 8):
        hurt = bytearray(record)
        hurt[at // 8] ^= 1 << at % 8
        with pytest.raises(DamagedRecord):
            decode(bytes(hurt), b"here", Interner())
    for length in range(len(record)):
        with pytest.raises(DamagedRecord):
            decode(record[:length], b"here", Interner())
    with pytest.raises(DamagedRecord):
        decode(record + b"\0", b"here", Interner())


PUT = {"puts": [1, 0], "paths": [["eth0", []]], "owner": ["ctl"], "cookie": [""], "monitored": [False], "revision": 1}


@pytest.mark.parametrize(
    "record",
    [
        None,
        "text",
        craft([]),
        craft({"deletes": [1, 0]}),
        craft({"deletes": [1, 0]}, bytes(13)),
        craft({"deletes": 7}),
        craft({"owners": [["ctl"]]}),
        craft({"settings": [None]}),
        craft({"template_puts": [["zz"]]}),
        craft({"template_puts": [["00", ["eth0", []], "ctl", "", False, 1, 0.0]]}),
        craft({"template_deletes": ["0"]}),
        craft({"template_deletes": [7]}),
        craft({**PUT, "paths": [["eth0", [1]]]}, bytes(12)),
        craft({**PUT, "owner": []}, bytes(12)),
        craft({**PUT, "owner": ["a", "b"]}, bytes(12)),
        craft({**PUT, "owner": ["a", "b"]}, bytes(12) + b"\2"),
        craft({key: value for key, value in PUT.items() if key != "revision"}, bytes(12)),
    ],
)
def test_nonsense_is_damaged_even_with_a_right_checksum(record: object) -> None:
    with pytest.raises(DamagedRecord):
        decode(record, b"here", Interner())


def test_the_crafted_record_is_right_where_nothing_is_changed() -> None:
    assert plain(decode(craft(PUT, key(1)), b"here", Interner())) == plain(
        Intent(puts=[Route(key(1), Paths("eth0", ()), "ctl", "", False, 1)])
    )


def test_the_checksum_is_the_record_s_own() -> None:
    records = {encode(Intent(deletes=[key(at)]), b"here") for at in range(100)}
    assert len({checksum_of(record) for record in records}) == 100


def shapes(intents: Sequence[Intent]) -> list[tuple[int, int]]:
    return [(len(piece.deletes), len(piece.puts)) for piece in pieces(intents)]


def test_small_intents_are_joined_unless_one_deletes_what_another_may_put(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ROUTES_MAX", 4)
    put, delete = Intent(puts=[Route(key(1), PATHS, "ctl")]), Intent(deletes=[key(1)])
    assert shapes([]) == []
    assert shapes([Intent(), Intent()]) == []
    assert shapes([put, put, put]) == [(0, 3)]
    assert shapes([delete, put, put]) == [(1, 2)]
    assert shapes([put, delete, put]) == [(0, 1), (1, 1)]
    assert shapes([put] * 6) == [(0, 4), (0, 2)]


def test_large_intents_are_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ROUTES_MAX", 4)
    large = Intent(
        puts=[Route(key(at), PATHS, "ctl") for at in range(9)],
        deletes=[key(at) for at in range(20, 25)],
        owners=[OwnerRecord("ctl")],
    )
    found = list(pieces([Intent(deletes=[key(1)]), large, Intent(deletes=[key(1)])]))
    assert [(len(p.deletes), len(p.puts), len(p.owners)) for p in found] == [
        (1, 0, 0), (4, 0, 0), (1, 0, 0), (0, 4, 0), (0, 4, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0),
    ]  # fmt: skip
