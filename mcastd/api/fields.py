"""Fields of the contract's messages that only messages have, and the checks of core/wishes.py under the names used here."""

from google.protobuf.duration_pb2 import Duration

from mcastd.core.wishes import (
    check_cookie,
    check_name,
    check_oifs,
    check_pattern,
    check_source,
    duration_text,
    group_error,
    invalid,
    read_address,
    read_prefix_length,
    read_table,
    read_table_of_both,
)
from mcastd.model.errors import McastdError, Reason

__all__ = [
    "check_cookie",
    "check_name",
    "check_oifs",
    "check_pattern",
    "check_source",
    "group_error",
    "invalid",
    "read_address",
    "read_duration",
    "read_prefix_length",
    "read_table",
    "read_table_of_both",
    "seconds_text",
    "too_many",
]

_DURATION_MAX = 315_576_000_000
"""Seconds (google/protobuf/duration.proto): 10,000 years."""


def read_duration(message: Duration, field: str) -> float:
    """Seconds, from 0 up."""
    seconds, nanos = message.seconds, message.nanos
    if not (0 <= seconds <= _DURATION_MAX and 0 <= nanos < 1_000_000_000):
        raise invalid(Reason.INVALID_VALUE, field, seconds_text(message), "give a duration from 0s up")
    return seconds + nanos / 1e9


def seconds_text(message: Duration) -> str:
    """A duration for people; the message's own method raises where it is out of range."""
    return duration_text(message.seconds + message.nanos / 1e9)


def too_many(count: int, limit: int, field: str) -> None:
    """Refuse more items than one request may hold."""
    if count > limit:
        text = f"{field} has {count} items, more than the {limit} allowed in a request: send several, or use ReplaceRoutes"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field=field, items=count, max=limit)
