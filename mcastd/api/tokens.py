"""Resume tokens: how far a follower of the feed has been told, as text that a client keeps and gives back."""

import base64
import binascii
import struct
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from mcastd.core.feed import Feed, Kind

_VERSION = 1
_TOKEN = struct.Struct(f">B16s{len(Kind) + 1}Q")
_NOT_FOLLOWED = 2**64 - 1


class Position(NamedTuple):
    """Everything before this has been told."""

    logs: Mapping[Kind, int]
    """By kind, of those that are followed."""
    upcalls: int | None
    """Number of the next upcall; None = they are not followed."""


def write_token(instance_id: str, position: Position) -> str:
    """The token of a position in the feed of this incarnation of the server."""
    logs = (position.logs.get(kind, _NOT_FOLLOWED) for kind in Kind)
    upcalls = _NOT_FOLLOWED if position.upcalls is None else position.upcalls
    packed = _TOKEN.pack(_VERSION, uuid.UUID(instance_id).bytes, *logs, upcalls)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_token(text: str, instance_id: str) -> Position | None:
    """The position that a token of this incarnation stands for; None for any other text."""
    try:
        packed = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
        version, instance, *numbers = _TOKEN.unpack(packed)
    except (binascii.Error, struct.error, UnicodeEncodeError):
        return None
    if version != _VERSION or instance != uuid.UUID(instance_id).bytes:
        return None
    logs = {kind: number for kind, number in zip(Kind, numbers, strict=False) if number != _NOT_FOLLOWED}
    return Position(logs, None if numbers[-1] == _NOT_FOLLOWED else numbers[-1])


def everything(feed: Feed) -> Position:
    """The position of whoever knows all that is so now."""
    return Position({kind: log.end for kind, log in feed.logs.items()}, feed.upcalls_end)
