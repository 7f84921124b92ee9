"""TEMPLATES and LEARNED messages: the layout, written by the server and read by the keeper."""

import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mcastd.keeper.channel import MESSAGE_MAX, ChannelError, take_int
from mcastd.model.address import Family
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey

_HEAD = struct.Struct("!IBB")
_ENTRY = struct.Struct("!BBBB8s16s16sII32sII")
_COUNT = struct.Struct("!8si")

BODY_MAX = MESSAGE_MAX - 64

COUNTS_MAX = 4096
"""Templates in one LEARNED message."""

IIF_MAX = 64
"""Bytes of a name or glob."""

TOLD_MAX = 64
"""Templates in the answer to one TELL_TEMPLATES: the keeper packs them in 0.2 ms, and looks for upcalls before the next."""

PART, FIRST, LAST = 4, 1, 2
"""Flags: part of a whole set, which replaces what was there with its last part; none of them = changes, in force at once."""


class TemplatesBody(NamedTuple):
    """A TEMPLATES message, read."""

    table: int
    family: Family
    flags: int
    templates: list[TemplateChange]


def bodies(table: int, family: Family, templates: Iterable[TemplateChange], *, whole: bool) -> Iterator[bytes]:
    """The messages for some changes, or for a whole set (even if it is empty); the receiver has all once it has the last."""
    parts: list[bytes] = [b""]
    for template in templates:
        entry = _pack(template)
        if len(parts[-1]) + len(entry) > BODY_MAX:
            parts.append(b"")
        parts[-1] += entry
    for at, part in enumerate(parts):
        flags = PART | (FIRST if at == 0 else 0) | (LAST if at == len(parts) - 1 else 0) if whole else 0
        yield _HEAD.pack(table, family, flags) + part


def read_templates(body: bytes) -> TemplatesBody:
    """Undo `bodies`; ChannelError for anything else."""
    try:
        table, version, flags = _HEAD.unpack_from(body)
        family = Family(version)
        templates, at = [], _HEAD.size
        while at < len(body):
            template, at = _unpack(body, at, table, family)
            templates.append(template)
    except (struct.error, ValueError) as exc:
        raise ChannelError(f"the body holds no templates: {exc}") from exc
    return TemplatesBody(table, family, flags, templates)


def told_values(table: int, family: Family, templates: Iterable[TemplateChange], total: int) -> dict[str, object]:
    """Answer to a TELL_TEMPLATES: at most TOLD_MAX templates, and how many there are."""
    (body,) = bodies(table, family, templates, whole=False)
    return {"templates": b64encode(body).decode(), "total": total}


def take_told(values: Mapping[str, Any]) -> tuple[list[TemplateChange], int]:
    """Undo `told_values`; ChannelError for anything else."""
    try:
        body = b64decode(values["templates"], validate=True)
    except (KeyError, TypeError, ValueError) as exc:
        raise ChannelError(f"the answer holds no templates: {exc!r}") from exc
    return read_templates(body).templates, take_int(values, "total", 0, 2**32)


def learned_bodies(table: int, family: Family, counts: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    """LEARNED messages: names of templates, and by how many their learned entries are more than the keeper counts."""
    packed = [_COUNT.pack(name, count) for name, count in counts]
    for at in range(0, len(packed), COUNTS_MAX):
        yield _HEAD.pack(table, family, 0) + b"".join(packed[at : at + COUNTS_MAX])


def read_learned(body: bytes) -> tuple[int, Family, list[tuple[bytes, int]]]:
    """Undo one of `learned_bodies`; ChannelError for anything else."""
    try:
        table, version, _ = _HEAD.unpack_from(body)
        return table, Family(version), list(_COUNT.iter_unpack(body[_HEAD.size :]))
    except (struct.error, ValueError) as exc:
        raise ChannelError(f"the body holds no counts: {exc}") from exc


def _pack(template: TemplateChange) -> bytes:
    key, action, iif = template.key, template.action, template.key.iif.encode()
    allowed, body, named = action or (0, bytes(VIFS_MAX), 0)
    return (
        _ENTRY.pack(
            action is not None,
            key.group_length,
            key.source_length,
            len(iif),
            template.name,
            key.group,
            key.source,
            allowed,
            named,
            body,
            template.learned,
            template.cap,
        )
        + iif
    )


def _unpack(body: bytes, at: int, table: int, family: Family) -> tuple[TemplateChange, int]:
    (there, group_length, source_length, iif_length, name, group, source, allowed, named, does, learned, cap) = (
        _ENTRY.unpack_from(body, at)
    )
    at += _ENTRY.size
    size = 4 if family is Family.IPV4 else 16
    if group_length > 8 * size or source_length > 8 * size or iif_length > IIF_MAX or at + iif_length > len(body):
        msg = f"a template of lengths {group_length}, {source_length}, {iif_length}"
        raise ValueError(msg)
    iif = body[at : at + iif_length].decode()
    key = TemplateKey(table, family, group[:size], group_length, source[:size], source_length, iif)
    action = TemplateAction(allowed, does, named) if there else None
    return TemplateChange(key, name, action, learned, cap), at + iif_length
