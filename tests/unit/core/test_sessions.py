"""The states of a lease: what a record says, and what can follow what."""

import pytest

from mcastd.core.sessions import TRANSITIONS, Event, State, expiry_of, state_of
from mcastd.model.record import Lease, OnExpiry, OwnerRecord

RETAIN, WITHDRAW = Lease(120.0, OnExpiry.RETAIN), Lease(120.0, OnExpiry.WITHDRAW)


@pytest.mark.parametrize(
    "owner, state",
    [
        (OwnerRecord("sdn"), State.NONE),
        (OwnerRecord("sdn", lease=RETAIN, session=3), State.CONNECTED),
        (OwnerRecord("sdn", lease=RETAIN, session=3, syncing=True), State.CONNECTED),
        (OwnerRecord("sdn", lease=RETAIN, session=3, syncing=True, replaying=3), State.SYNCING),
        (OwnerRecord("sdn", lease=WITHDRAW), State.ORPHANED),
        (OwnerRecord("sdn", lease=WITHDRAW, hold_until=5.0, syncing=True), State.ORPHANED),
    ],
)
def test_what_a_record_says(owner: OwnerRecord, state: State) -> None:
    assert state_of(owner) is state


def test_what_can_follow_what() -> None:
    assert all((state, Event.OPEN) in TRANSITIONS for state in State), "who has the epoch is let in, whatever was before"
    assert {state for state, event in TRANSITIONS if event is Event.WITHDRAW} == {State.ORPHANED}, "nothing else withdraws"
    assert {state for state, event in TRANSITIONS if event is Event.SYNC_END} == {State.SYNCING}, "no sweep without a mark"
    assert {after for (_, event), after in TRANSITIONS.items() if event is Event.END} == {State.ORPHANED}


def test_what_the_end_of_the_hold_time_is() -> None:
    assert expiry_of(OwnerRecord("sdn", lease=WITHDRAW)) is Event.WITHDRAW
    assert expiry_of(OwnerRecord("sdn", lease=RETAIN)) is Event.RETAIN
    assert expiry_of(OwnerRecord("sdn")) is Event.RETAIN
