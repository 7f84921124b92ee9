"""Sessions of owners: the states of a lease (api.md section 5) as one table.

            OPEN                      END
    NONE ──────────► CONNECTED ──────────────► ORPHANED ── EXPIRE, WITHDRAW ──► NONE
                      │    ▲  ▲                  │   ▲
            SYNC_BEGIN▼    │  └──────OPEN────────┘   └─ EXPIRE, RETAIN (stays, stale for ever)
                    SYNCING┘ SYNC_END, OPEN

What an owner's sessions have written is stale while it is ORPHANED; while it is connected, what an unfinished replay has
not refreshed. Stale entries forward like all others.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from mcastd.model.record import OnExpiry, OwnerRecord


class State(Enum):
    """Of an owner's lease."""

    NONE = "none"
    CONNECTED = "connected"
    SYNCING = "syncing"
    """Connected, and a replay is under way."""
    ORPHANED = "orphaned"


class Event(Enum):
    """What happens to it."""

    OPEN = "open"
    SYNC_BEGIN = "sync begin"
    SYNC_END = "sync end"
    END = "end"
    """The session has ended, for whatever reason."""
    WITHDRAW = "withdraw"
    """The hold time is over, and the lease says WITHDRAW."""
    RETAIN = "retain"
    """The hold time is over, and the lease says RETAIN."""


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.NONE, Event.OPEN): State.CONNECTED,
        (State.CONNECTED, Event.OPEN): State.CONNECTED,
        (State.CONNECTED, Event.SYNC_BEGIN): State.SYNCING,
        (State.CONNECTED, Event.END): State.ORPHANED,
        (State.SYNCING, Event.OPEN): State.CONNECTED,
        (State.SYNCING, Event.SYNC_BEGIN): State.SYNCING,
        (State.SYNCING, Event.SYNC_END): State.CONNECTED,
        (State.SYNCING, Event.END): State.ORPHANED,
        (State.ORPHANED, Event.OPEN): State.CONNECTED,
        (State.ORPHANED, Event.WITHDRAW): State.NONE,
        (State.ORPHANED, Event.RETAIN): State.ORPHANED,
    }
)
"""What is not here cannot happen, or is refused."""


def state_of(owner: OwnerRecord) -> State:
    """The state that a record is in."""
    if owner.lease is None:
        return State.NONE
    if not owner.session:
        return State.ORPHANED
    return State.SYNCING if owner.replaying == owner.session else State.CONNECTED


def expiry_of(owner: OwnerRecord) -> Event:
    """What the end of the hold time is for this owner."""
    withdraw = owner.lease is not None and owner.lease.on_expiry is OnExpiry.WITHDRAW
    return Event.WITHDRAW if withdraw else Event.RETAIN
