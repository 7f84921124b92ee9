"""Records: an intent packed column by column into one blob, and back.

A record is a prefix (magic with the format's version, CRC-32, length of the header), a JSON header and the columns. Keys
of one length stand joined; every other attribute is a short list of distinct values in the header and, where there is more
than one, an array that says which; revisions are one number or an array. A route costs 12 (IPv4) or 36 (IPv6) bytes and
mostly one more. New attributes are new keys of the header with a default for records that lack them; what an older program
must not overlook needs a new schema version (database.py) instead.

The checksum covers an identity (which journal row, which chunk of which snapshot), so that a sound record in the wrong
place is found too. Everything is little-endian. Knows nothing of SQLite.
"""

import json
import struct
import sys
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar
from zlib import crc32

from mcastd.model.address import KEY_SIZE_V4, KEY_SIZE_V6
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, Lease, OnExpiry, OwnerRecord, Pin
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.model.template import is_template_key

ROUTES_MAX = 10_000
"""Routes, joins and deletions in one record: what one slice of work costs, some 5 ms, and what one damaged blob can hold."""

_MAGIC = b"mcr\x01"
_PREFIX = struct.Struct("<4sII")
_CHECKED_FROM = 8
"""The checksum covers all that follows it."""

_encode_header = json.JSONEncoder(separators=(",", ":")).encode
_decode_header = json.JSONDecoder().decode

_COOKIES_INTERNED = 256
"""A record with more different cookies has mostly one for each route: a table of them all would be memory for nothing."""

_T = TypeVar("_T", bound=Hashable)


class DamagedRecord(ValueError):  # noqa: N818 - the name says what was found
    """A blob is not what the store wrote there."""


class Interner:
    """Gives equal values of one load the same object: at 100,000 routes that is most of their memory."""

    __slots__ = ("_paths", "_texts")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._texts: dict[str, str] = {}
        self._paths: dict[Paths, Paths] = {}

    def text(self, text: str) -> str:
        """Return the one object for this text."""
        return self._texts.setdefault(text, text)

    def paths(self, iif: str, oifs: Iterable[tuple[str, int]]) -> Paths:
        """Return the one object for these interfaces."""
        text = self.text
        made = Paths(text(iif), tuple([Oif(text(name), threshold) for name, threshold in oifs]))
        return self._paths.setdefault(made, made)


def pieces(intents: Iterable[Intent]) -> Iterator[Intent]:
    """Yield intents of a record's size that, in this order, say the same; small ones are joined.

    In a record deletions come before puts, so a key that an intent both deletes and puts is there afterwards; and an
    intent that deletes never joins one that puts.
    """
    pending = Intent()
    for intent in intents:
        size = _size(pending) + _size(intent)
        overtakes = (intent.deletes and pending.puts) or (intent.join_deletes and pending.join_puts)
        if overtakes or size > ROUTES_MAX:
            if pending:
                yield pending
            pending = Intent()
        if _size(intent) > ROUTES_MAX:
            yield from _split(intent)
        else:
            pending.puts += intent.puts
            pending.deletes += intent.deletes
            pending.owners += intent.owners
            pending.settings += intent.settings
            pending.join_puts += intent.join_puts
            pending.join_deletes += intent.join_deletes
    if pending:
        yield pending


def _size(intent: Intent) -> int:
    return len(intent.puts) + len(intent.deletes) + len(intent.join_puts) + len(intent.join_deletes)


def _split(intent: Intent) -> Iterator[Intent]:
    for at in range(0, len(intent.deletes), ROUTES_MAX):
        yield Intent(deletes=intent.deletes[at : at + ROUTES_MAX])
    for at in range(0, len(intent.puts), ROUTES_MAX):
        yield Intent(puts=intent.puts[at : at + ROUTES_MAX])
    for at in range(0, len(intent.join_deletes), ROUTES_MAX):
        yield Intent(join_deletes=intent.join_deletes[at : at + ROUTES_MAX])
    for at in range(0, len(intent.join_puts), ROUTES_MAX):
        yield Intent(join_puts=intent.join_puts[at : at + ROUTES_MAX])
    if intent.owners or intent.settings:
        yield Intent(owners=intent.owners, settings=intent.settings)


def encode(intent: Intent, identity: bytes) -> bytes:
    """Pack one intent as the record of this identity."""
    header: dict[str, object] = {}
    columns: list[bytes] = []
    deletes, puts = intent.deletes, intent.puts
    if forgotten := [key for key in deletes if is_template_key(key)]:
        header["template_deletes"] = [key.hex() for key in forgotten]
        deletes = [key for key in deletes if not is_template_key(key)]
    if templates := [route for route in puts if isinstance(route, Template)]:
        header["template_puts"] = [_encode_template(template) for template in templates]
        puts = [route for route in puts if not isinstance(route, Template)]
    if deletes:
        header["deletes"] = _encode_keys(deletes, columns)
    if puts:
        _encode_puts(puts, header, columns)
    if intent.owners:
        header["owners"] = [_encode_owner(owner) for owner in intent.owners]
    if intent.settings:
        header["settings"] = [(s.interface, s.owner, s.ttl_threshold, s.ttl_revision, s.pins) for s in intent.settings]
        if any(s.router_discovery is not None for s in intent.settings):
            header["router_discovery"] = [(s.router_discovery, s.discovery_revision) for s in intent.settings]
    if intent.join_deletes:
        header["join_deletes"] = [_encode_join_key(key) for key in intent.join_deletes]
    if intent.join_puts:
        header["join_puts"] = [[*_encode_join_key(one.key), one.cookie, one.revision] for one in intent.join_puts]
    text = _encode_header(header).encode()
    body = b"".join((text, *columns))
    checksum = crc32(body, crc32(len(text).to_bytes(4, "little"), crc32(identity)))
    return _PREFIX.pack(_MAGIC, checksum, len(text)) + body


def checksum_of(record: bytes) -> int:
    """Return the checksum that a record carries; the store chains them, so that a missing record is found."""
    return int.from_bytes(record[4:_CHECKED_FROM], "little")


def decode(record: object, identity: bytes, interner: Interner) -> Intent:
    """Unpack the record of this identity; DamagedRecord if it is anything else."""
    if not isinstance(record, bytes) or len(record) < _PREFIX.size:
        raise DamagedRecord("a record is cut short")
    magic, checksum, length = _PREFIX.unpack_from(record)
    if magic != _MAGIC or checksum != crc32(memoryview(record)[_CHECKED_FROM:], crc32(identity)):
        raise DamagedRecord("a record fails its checksum")
    start = _PREFIX.size + length
    try:
        reader = _Columns(record, start)
        intent = _decode_body(_decode_header(record[_PREFIX.size : start].decode()), reader, interner)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise DamagedRecord(f"a record with a right checksum makes no sense ({exc!r})") from exc
    if reader.at != len(record):
        raise DamagedRecord("a record is longer than it says")
    return intent


def _encode_owner(owner: OwnerRecord) -> tuple[object, ...]:
    if owner.lease is None:
        return owner.name, owner.epoch, owner.revision
    return owner.name, owner.epoch, owner.revision, owner.lease, owner.hold_until, owner.syncing


def _encode_template(route: Template) -> list[object]:
    """Templates are few and of many lengths: they stand in the header."""
    paths = route.paths
    return [
        route.key.hex(),
        (paths.iif, paths.oifs),
        route.owner,
        route.cookie,
        route.monitored,
        route.revision,
        route.idle_timeout,
        route.shared_tree,
        route.join,
        route.session > 0,
    ]


def _encode_join_key(key: JoinKey) -> list[object]:
    """Joins are of many lengths, and have a name: they stand in the header."""
    return [key.owner, key.interface, key.group.hex(), key.group_length, key.source.hex(), key.source_length]


def _encode_puts(puts: Sequence[Route], header: dict[str, object], columns: list[bytes]) -> None:
    if len({len(route.key) for route in puts}) > 1:
        puts = sorted(puts, key=lambda route: len(route.key))  # stable: of two puts of one key the later stays the later
    header["puts"] = _encode_keys([route.key for route in puts], columns)
    header["paths"] = [(p.iif, p.oifs) for p in _encode_shared([route.paths for route in puts], columns)]
    header["owner"] = _encode_values([route.owner for route in puts], columns)
    header["cookie"] = _encode_values([route.cookie for route in puts], columns)
    header["monitored"] = _encode_values([route.monitored for route in puts], columns)
    if any(route.join for route in puts):
        header["join"] = _encode_values([route.join for route in puts], columns)
    if any(route.session for route in puts):
        header["session"] = _encode_values([int(route.session > 0) for route in puts], columns)
    revisions = [route.revision for route in puts]
    if min(revisions) == max(revisions):
        header["revision"] = revisions[0]
    else:
        columns.append(_little(array("Q", revisions)).tobytes())


def _encode_keys(keys: Sequence[bytes], columns: list[bytes]) -> tuple[int, int]:
    short = [key for key in keys if len(key) == KEY_SIZE_V4]
    long = [key for key in keys if len(key) == KEY_SIZE_V6] if len(short) < len(keys) else []
    if len(short) + len(long) < len(keys):
        raise ValueError("a route's key is neither 12 nor 36 bytes long")
    columns += (b"".join(short), b"".join(long))
    return len(short), len(long)


def _encode_values(values: Sequence[_T], columns: list[bytes]) -> list[_T]:
    distinct = dict.fromkeys(values)
    if len(distinct) > 1:
        place = {value: at for at, value in enumerate(distinct)}
        columns.append(_index(len(distinct), map(place.__getitem__, values)))
    return list(distinct)


def _encode_shared(paths: Sequence[Paths], columns: list[bytes]) -> list[Paths]:
    """Do as _encode_values does, but hash each object once: Paths hash in Python, and are few."""
    objects = dict(zip(map(id, paths), paths, strict=True))
    distinct = dict.fromkeys(objects.values())
    if len(distinct) > 1:
        place = {value: at for at, value in enumerate(distinct)}
        place_of_object = {number: place[value] for number, value in objects.items()}
        columns.append(_index(len(distinct), map(place_of_object.__getitem__, map(id, paths))))
    return list(distinct)


def _index(distinct: int, places: Iterable[int]) -> bytes:
    return _little(array(_index_type(distinct), places)).tobytes()


def _index_type(distinct: int) -> str:
    return "B" if distinct <= 1 << 8 else "H" if distinct <= 1 << 16 else "I"


def _little(values: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        values.byteswap()
    return values


class _Columns:
    """Reads a record's columns in the order in which they were written."""

    __slots__ = ("_record", "at")

    def __init__(self, record: bytes, at: int) -> None:
        self._record = record
        self.at = at

    def keys(self, counts: Sequence[int]) -> list[bytes]:
        short, long = counts
        return self._keys(KEY_SIZE_V4, short) + self._keys(KEY_SIZE_V6, long)

    def _keys(self, size: int, count: int) -> list[bytes]:
        record, start = self._record, self.at
        self.at = end = start + size * count
        if end > len(record):
            raise ValueError("a column of keys ends early")
        return [record[at : at + size] for at in range(start, end, size)]

    def numbers(self, kind: str, count: int) -> "array[int]":
        values = array(kind)
        start = self.at
        self.at = end = start + values.itemsize * count
        values.frombytes(self._record[start:end])
        if len(values) != count:
            raise ValueError("a column of numbers ends early")
        return _little(values)

    def values(self, distinct: Sequence[_T], count: int) -> Iterable[_T]:
        if len(distinct) == 1:
            return repeat(distinct[0], count)
        return map(distinct.__getitem__, self.numbers(_index_type(len(distinct)), count))


def _decode_body(header: object, columns: _Columns, interner: Interner) -> Intent:
    if not isinstance(header, dict):
        raise TypeError("a header is no object")
    text = interner.text
    intent = Intent()
    if "deletes" in header:
        intent.deletes = columns.keys(header["deletes"])
    if "puts" in header:
        intent.puts = _decode_puts(header, columns, interner)
    intent.deletes += map(bytes.fromhex, header.get("template_deletes", ()))
    intent.puts += [_decode_template(values, interner) for values in header.get("template_puts", ())]
    if "owners" in header:
        intent.owners = [_decode_owner(values, interner) for values in header["owners"]]
    if "settings" in header:
        settings = header["settings"]
        discovery = header.get("router_discovery", [(None, 0)] * len(settings))
        intent.settings = [
            InterfaceSettings(text(interface), text(owner), threshold, revision, tuple(Pin(*pin) for pin in pins), *said)
            for (interface, owner, threshold, revision, pins), said in zip(settings, discovery, strict=True)
        ]
    intent.join_deletes = [_decode_join_key(values, interner) for values in header.get("join_deletes", ())]
    intent.join_puts = [_decode_join(values, interner) for values in header.get("join_puts", ())]
    return intent


def _decode_owner(values: list[Any], interner: Interner) -> OwnerRecord:
    name, epoch, revision, *session = values
    owner = OwnerRecord(interner.text(name), epoch, revision)
    if session:
        (hold_time, on_expiry), owner.hold_until, owner.syncing = session
        owner.lease = Lease(hold_time, OnExpiry(on_expiry))
    return owner


def _decode_template(values: list[Any], interner: Interner) -> Template:
    key, (iif, oifs), owner, cookie, monitored, revision, idle_timeout, shared_tree, *later = values
    paths, owner = interner.paths(iif, oifs), interner.text(owner)
    join, session, *_ = (*later, False, False)
    fixed = (bytes.fromhex(key), paths, owner, cookie, monitored, revision)
    return Template(*fixed, idle_timeout, shared_tree, bool(join), int(session))


def _decode_join_key(values: list[Any], interner: Interner) -> JoinKey:
    owner, interface, group, group_length, source, source_length = values
    text = interner.text
    return JoinKey(text(owner), text(interface), bytes.fromhex(group), group_length, bytes.fromhex(source), source_length)


def _decode_join(values: list[Any], interner: Interner) -> JoinRecord:
    *key, cookie, revision = values
    return JoinRecord(_decode_join_key(key, interner), cookie, revision)


def _decode_puts(header: dict[str, Any], columns: _Columns, interner: Interner) -> list[Route]:
    keys = columns.keys(header["puts"])
    count = len(keys)
    paths = columns.values([interner.paths(iif, oifs) for iif, oifs in header["paths"]], count)
    owners = columns.values([interner.text(owner) for owner in header["owner"]], count)
    cookies = header["cookie"]
    if len(cookies) <= _COOKIES_INTERNED:
        cookies = [interner.text(cookie) for cookie in cookies]
    cookies = columns.values(cookies, count)
    monitored = columns.values(header["monitored"], count)
    joins = columns.values(header.get("join", (False,)), count)
    sessions = columns.values(header.get("session", (0,)), count)
    revisions = repeat(header["revision"], count) if "revision" in header else columns.numbers("Q", count)
    return list(map(Route, keys, paths, owners, cookies, monitored, revisions, joins, sessions))
