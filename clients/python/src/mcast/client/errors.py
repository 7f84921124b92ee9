"""Owns the exceptions: what the daemon says of a refused call or item, and which refusals are worth another try.

Each has the daemon's word (`reason`), which is what programs compare; the list is docs/errors.md.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t

_DETAILS = "grpc-status-details-bin"

_BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_NOTHING: Mapping[str, str] = MappingProxyType({})

# What asking again does not heal. UNKNOWN, INTERNAL and CANCELLED are what gRPC itself says of a stream that broke.
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DATA_LOSS,
    }
)


class ConfigurationError(ValueError):
    """An address, a TLS file or an argument that cannot be used; nothing was sent."""


class McastError(Exception):
    """A call, or one item of it, that was refused or has failed."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] = _NOTHING,
        fields: Mapping[str, str] = _NOTHING,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.reason = reason
        """The daemon's word, as OWNED_BY_OTHER; empty where it gave none (it was not reached, or gRPC itself refused)."""
        self.metadata = metadata
        """What the message mentions, by key."""
        self.fields = fields
        """Of an invalid request: what is wrong with which field."""
        self.retry_after = retry_after
        """Seconds to wait before another try, where the daemon says so."""

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without anything being changed in it."""
        return self.code not in _FINAL

    def _number(self, key: str) -> int:
        text = self.metadata.get(key, "")
        return int(text) if text.isdecimal() else 0


class Unavailable(McastError):  # noqa: N818 - these names say what happened, as the reasons do
    """The daemon is not reached, or is ending or beginning; for a write it may be unknown whether it was done."""


class DeadlineExceeded(McastError):  # noqa: N818 - see Unavailable
    """There was no answer in time; for a write it is unknown whether it was done."""


class InvalidRequest(McastError):  # noqa: N818 - see Unavailable
    """The request has a fault, which the message names."""


class NotAllowed(McastError):  # noqa: N818 - see Unavailable
    """The caller's role does not allow it, or has been taken away."""


class NotFound(McastError):  # noqa: N818 - see Unavailable
    """What was to be changed does not exist."""


class OwnedByOther(McastError):  # noqa: N818 - see Unavailable
    """The route belongs to another owner, `owner`."""

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.metadata.get("owner", "")


class StaleEpoch(McastError):  # noqa: N818 - see Unavailable
    """A leader with a higher epoch, `highest`, was seen: another replica leads."""

    @property
    def highest(self) -> int:
        """The highest epoch that the daemon has seen."""
        return self._number("highest")


class Superseded(McastError):  # noqa: N818 - see Unavailable
    """Another session of the owner has taken over, with epoch `by`."""

    @property
    def by(self) -> int:
        """Its epoch."""
        return self._number("by")


class RevisionMismatch(McastError):  # noqa: N818 - see Unavailable
    """What the owner asks for has changed since `if_revision`; it is at `now`."""

    @property
    def now(self) -> int:
        """The owner's revision."""
        return self._number("now")


class TooManyDeletions(McastError):  # noqa: N818 - see Unavailable
    """More routes would have gone than `max_deletions` allows; none has."""

    @property
    def would(self) -> int:
        """How many would have gone."""
        return self._number("would")

    @property
    def max(self) -> int:
        """How many were allowed."""
        return self._number("max")


class EmptySet(McastError):  # noqa: N818 - see Unavailable
    """An empty set would delete everything: say `allow_empty` if that is meant."""


class LimitExceeded(McastError):  # noqa: N818 - see Unavailable
    """A limit is reached: of routes, of VIFs, of this caller's streams or requests."""


class ItemsFailed(McastError):  # noqa: N818 - see Unavailable
    """Items of a write failed, `failures`; the others were carried out. Code, reason and metadata are those of the first one."""

    def __init__(self, failures: Sequence[rs.RouteChange | t.Join], count: int) -> None:
        self.failures = [*failures]
        """Those that the answer had room for."""
        self.count = count
        first = self.failures[0].error if self.failures else t.Error(message="the answer had no room for it")
        text = first.message if count == 1 else f"{count} items failed; the first: {first.message}"
        super().__init__(code_of(first.code), text, reason=first.reason, metadata=dict(first.metadata))


_BY_REASON: Mapping[str, type[McastError]] = {
    "EMPTY_SET": EmptySet,
    "OWNED_BY_OTHER": OwnedByOther,
    "REVISION_MISMATCH": RevisionMismatch,
    "STALE_EPOCH": StaleEpoch,
    "SUPERSEDED": Superseded,
    "TOO_MANY_DELETIONS": TooManyDeletions,
}

_BY_CODE: Mapping[grpc.StatusCode, type[McastError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
}


def code_of(number: int) -> grpc.StatusCode:
    """Return the status code of a number of google.rpc.Code; UNKNOWN for one that this gRPC does not know."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def make_error(code: grpc.StatusCode, message: str, reason: str = "", **more: Any) -> McastError:
    """Make the exception of a code and a reason."""
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, McastError)
    return kind(code, message, reason=reason, **more)


def stream_ended() -> Unavailable:
    """Make the error of a stream that the daemon has ended without a word: said of the stream, not of the connection."""
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "the daemon has ended the stream", reason="ENDED")


def misused(what: str, form: str) -> McastError:
    """Make the error of something that was never entered: it would wait for ever."""
    return McastError(grpc.StatusCode.FAILED_PRECONDITION, f"the {what} is not open: use it as a context, `{form}`")


def from_item(error: t.Error) -> McastError:
    """Make the exception of what an item's `error` says."""
    return make_error(code_of(error.code), error.message, error.reason, metadata=dict(error.metadata))


def from_rpc(error: Any) -> McastError:
    """Make the exception of a grpc.RpcError, with the details in its trailer."""
    details = next((value for key, value in error.trailing_metadata() or () if key == _DETAILS), b"")
    reason, more = _read(details)
    return make_error(error.code(), error.details() or "", reason, **more)


def _read(details: bytes) -> tuple[str, dict[str, Any]]:
    """Take google.rpc.Status apart; what cannot be read is left out, since the status itself has been told."""
    reason, more = "", dict[str, Any]()
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                reason, more["metadata"] = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                more["fields"] = {violation.field: violation.description for violation in bad.field_violations}
            elif detail.Unpack(retry):
                more["retry_after"] = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        pass
    return reason, more
