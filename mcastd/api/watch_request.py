"""WatchRequest: what of it can be wrong, read and checked."""

from mcast.v1 import services_pb2 as sv
from mcastd.api import fields
from mcastd.model.errors import McastdError, Reason

HEARTBEAT = 30.0
HEARTBEAT_MIN = 1.0
HEARTBEAT_MAX = 3600.0

KINDS_MAX = 64
"""Kinds in one request, where one may be named twice; a message has room for four million."""

_DEFAULT_KINDS = (sv.KIND_ROUTE, sv.KIND_INTERFACE, sv.KIND_SOURCE)


def kinds(request: sv.WatchRequest) -> frozenset[int]:
    """The kinds that are followed, by their numbers; McastdError if one is unknown."""
    known = [number for number in sv.Kind.values() if number]
    if len(request.kinds) > KINDS_MAX:
        text = f"{len(request.kinds)} kinds are too many: there are {len(known)}"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field="kinds", items=len(request.kinds), max=KINDS_MAX)
    for at, kind in enumerate(request.kinds):
        if kind not in known:
            names = ", ".join(sv.Kind.Name(number) for number in known)
            raise fields.invalid(Reason.INVALID_VALUE, f"kinds[{at}]", kind, f"is no kind that this version knows ({names})")
    return frozenset(request.kinds or _DEFAULT_KINDS)


def heartbeat(request: sv.WatchRequest) -> float:
    """Seconds of silence after which there is a sign of life; McastdError if that can't be."""
    if not request.HasField("heartbeat_interval"):
        return HEARTBEAT
    seconds = fields.read_duration(request.heartbeat_interval, "heartbeat_interval")
    if not HEARTBEAT_MIN <= seconds <= HEARTBEAT_MAX:
        value = fields.seconds_text(request.heartbeat_interval)
        raise fields.invalid(
            Reason.INVALID_VALUE, "heartbeat_interval", value, f"give {HEARTBEAT_MIN:g}s to {HEARTBEAT_MAX:g}s, or leave it unset"
        )
    return seconds
