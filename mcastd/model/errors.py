"""Reasons: the stable words that say why something was refused or does not forward, and their gRPC codes.

A Problem is the value (a route's last_error, an item's error); McastdError carries one when a whole request is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


class Code(IntEnum):
    """Status codes by the numbers of google.rpc.Code, which the contract's Error.code uses."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Reason(StrEnum):
    """Why, in one word that clients may compare; never renamed, never re-used."""

    INVALID_GROUP = "INVALID_GROUP"
    INVALID_SOURCE = "INVALID_SOURCE"
    INVALID_INTERFACE = "INVALID_INTERFACE"
    INVALID_TTL = "INVALID_TTL"
    INVALID_VALUE = "INVALID_VALUE"
    FAMILY_MISMATCH = "FAMILY_MISMATCH"
    LINK_LOCAL_GROUP = "LINK_LOCAL_GROUP"
    DUPLICATE_ROUTE = "DUPLICATE_ROUTE"
    AMBIGUOUS = "AMBIGUOUS"
    SHARED_TREE_OVERLAP = "SHARED_TREE_OVERLAP"
    TOO_MANY_ITEMS = "TOO_MANY_ITEMS"
    NOT_FOUND = "NOT_FOUND"
    OWNED_BY_OTHER = "OWNED_BY_OTHER"
    NOT_ALLOWED = "NOT_ALLOWED"
    STALE_EPOCH = "STALE_EPOCH"
    NO_SESSION = "NO_SESSION"
    SUPERSEDED = "SUPERSEDED"
    TOO_MANY_DELETIONS = "TOO_MANY_DELETIONS"
    EMPTY_SET = "EMPTY_SET"
    REVISION_MISMATCH = "REVISION_MISMATCH"
    VIF_TABLE_FULL = "VIF_TABLE_FULL"
    ROUTE_LIMIT = "ROUTE_LIMIT"
    STREAM_LIMIT = "STREAM_LIMIT"
    RATE_LIMIT = "RATE_LIMIT"
    MEMBERSHIP_LIMIT = "MEMBERSHIP_LIMIT"
    SOURCE_FILTER_LIMIT = "SOURCE_FILTER_LIMIT"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    NO_SUCH_INTERFACE = "NO_SUCH_INTERFACE"
    NOT_MULTICAST_CAPABLE = "NOT_MULTICAST_CAPABLE"
    INTERFACE_DOWN = "INTERFACE_DOWN"
    MROUTE_SOCKET_BUSY = "MROUTE_SOCKET_BUSY"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    TIMEOUT = "TIMEOUT"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    KERNEL_ERROR = "KERNEL_ERROR"


CODES: Mapping[Reason, Code] = MappingProxyType(
    {
        Reason.INVALID_GROUP: Code.INVALID_ARGUMENT,
        Reason.INVALID_SOURCE: Code.INVALID_ARGUMENT,
        Reason.INVALID_INTERFACE: Code.INVALID_ARGUMENT,
        Reason.INVALID_TTL: Code.INVALID_ARGUMENT,
        Reason.INVALID_VALUE: Code.INVALID_ARGUMENT,
        Reason.FAMILY_MISMATCH: Code.INVALID_ARGUMENT,
        Reason.LINK_LOCAL_GROUP: Code.INVALID_ARGUMENT,
        Reason.DUPLICATE_ROUTE: Code.INVALID_ARGUMENT,
        Reason.AMBIGUOUS: Code.INVALID_ARGUMENT,
        Reason.SHARED_TREE_OVERLAP: Code.FAILED_PRECONDITION,
        Reason.TOO_MANY_ITEMS: Code.INVALID_ARGUMENT,
        Reason.NOT_FOUND: Code.NOT_FOUND,
        Reason.OWNED_BY_OTHER: Code.ALREADY_EXISTS,
        Reason.NOT_ALLOWED: Code.PERMISSION_DENIED,
        Reason.STALE_EPOCH: Code.FAILED_PRECONDITION,
        Reason.NO_SESSION: Code.FAILED_PRECONDITION,
        Reason.SUPERSEDED: Code.ABORTED,
        Reason.TOO_MANY_DELETIONS: Code.FAILED_PRECONDITION,
        Reason.EMPTY_SET: Code.FAILED_PRECONDITION,
        Reason.REVISION_MISMATCH: Code.ABORTED,
        Reason.VIF_TABLE_FULL: Code.RESOURCE_EXHAUSTED,
        Reason.ROUTE_LIMIT: Code.RESOURCE_EXHAUSTED,
        Reason.STREAM_LIMIT: Code.RESOURCE_EXHAUSTED,
        Reason.RATE_LIMIT: Code.RESOURCE_EXHAUSTED,
        Reason.MEMBERSHIP_LIMIT: Code.RESOURCE_EXHAUSTED,
        Reason.SOURCE_FILTER_LIMIT: Code.RESOURCE_EXHAUSTED,
        Reason.SLOW_CONSUMER: Code.RESOURCE_EXHAUSTED,
        Reason.NO_SUCH_INTERFACE: Code.FAILED_PRECONDITION,
        Reason.NOT_MULTICAST_CAPABLE: Code.FAILED_PRECONDITION,
        Reason.INTERFACE_DOWN: Code.FAILED_PRECONDITION,
        Reason.MROUTE_SOCKET_BUSY: Code.UNAVAILABLE,
        Reason.STORE_UNAVAILABLE: Code.UNAVAILABLE,
        Reason.SHUTTING_DOWN: Code.UNAVAILABLE,
        Reason.TIMEOUT: Code.DEADLINE_EXCEEDED,
        Reason.NOT_IMPLEMENTED: Code.UNIMPLEMENTED,
        Reason.KERNEL_ERROR: Code.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason with its words for people and what they mention, by key (all text)."""

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=lambda: NOTHING)

    @property
    def code(self) -> Code:
        """The status code that goes with the reason."""
        return CODES[self.reason]


class McastdError(Exception):
    """A request, or a step of the daemon itself, was refused; nothing of it was done."""

    def __init__(self, reason: Reason, message: str, **metadata: object) -> None:
        """Say why, in words that name the field, the value and the remedy."""
        super().__init__(message)
        self.problem = Problem(reason, message, {k: str(v) for k, v in metadata.items()} if metadata else NOTHING)

    @property
    def reason(self) -> Reason:
        """The stable word."""
        return self.problem.reason


class KernelRefused(McastdError):  # noqa: N818 - the name says what happened, as the field does
    """The kernel refused a call; `errno` is its number."""

    def __init__(self, call: str, errno: int, message: str, **metadata: object) -> None:
        """Name the call as the kernel's header does ("MRT_ADD_VIF")."""
        super().__init__(Reason.KERNEL_ERROR, message, call=call, errno=errno, **metadata)
        self.errno = errno
