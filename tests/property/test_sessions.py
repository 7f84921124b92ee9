"""Sessions against a model that knows nothing of drafts, generations and counts, in any order of what controllers do."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcastd.core.sessions import TRANSITIONS, Event, State, state_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry, OwnerRecord
from mcastd.model.write import (
    BeginSync,
    DeleteRoutes,
    EndSession,
    EndSync,
    ExpireLease,
    OpenSession,
    Program,
    PutRoutes,
    Write,
    WriteOptions,
)
from tests.fakerouter import Router, route, sg

OWNERS = ("red", "blue")
owners = st.sampled_from(OWNERS)
numbers = st.integers(0, 5)
oifs = st.sampled_from(["down1", "down2"])
expiries = st.sampled_from(OnExpiry)
ops = st.lists(st.tuples(numbers, st.none() | oifs), min_size=1, max_size=4)
HOLD = 10.0


@dataclass
class Entry:
    """One route as the model has it."""

    owner: str
    oif: str
    by_session: bool
    fresh: bool = True


@dataclass
class Owner:
    """One owner as the model has it."""

    state: State = State.NONE
    session: int = 0
    epoch: int = 0
    hold_until: float = 0.0
    lease: OnExpiry = OnExpiry.RETAIN
    broken: bool = False
    """A replay has begun, and not ended well."""
    routes: dict[int, Entry] = field(default_factory=dict)


class Sessions(RuleBasedStateMachine):
    """Two owners and six routes."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router("up", "down1", "down2")
        self.model = {name: Owner() for name in OWNERS}
        self.last = 0
        self.now = 1000.0
        self.group: list[Write] = []

    # --- what is done ------------------------------------------------------------------------------------------------

    def write(self, write: Write) -> McastdError | int:
        """Carry out a write; why it was refused, or how many routes it deleted."""
        before = {name: state_of(self.record(name)) for name in OWNERS}
        try:
            (outcome,) = self.router.write(write)
        except McastdError as exc:
            assert {name: state_of(self.record(name)) for name in OWNERS} == before
            return exc
        return outcome.deleted

    def record(self, name: str) -> OwnerRecord:
        return self.router.engine.desired.owners.get(name) or OwnerRecord(name)

    def step(self, name: str, event: Event) -> None:
        """The model goes over into the next state, by the table."""
        self.model[name].state = TRANSITIONS[self.model[name].state, event]

    @rule(name=owners, epoch=st.integers(0, 3), expiry=expiries)
    def open(self, name: str, epoch: int, expiry: OnExpiry) -> None:
        """A controller opens a session."""
        self.last += 1
        owner = self.model[name]
        done = self.write(OpenSession(WriteOptions(name, epoch=epoch), self.last, Lease(HOLD, expiry)))
        if epoch and epoch < owner.epoch:
            assert isinstance(done, McastdError)
            assert done.reason is Reason.STALE_EPOCH
            return
        assert done == 0
        self.step(name, Event.OPEN)
        owner.session, owner.epoch, owner.lease, owner.hold_until = self.last, max(owner.epoch, epoch), expiry, 0.0

    @rule(name=owners, ops=ops, late=st.booleans())
    def program(self, name: str, ops: list[tuple[int, str | None]], late: bool) -> None:
        """A session, perhaps one that was superseded, puts and deletes routes."""
        owner = self.model[name]
        session = (owner.session or 999) - late
        made = [
            (at, sg(number) if oif is None else route(sg(number), "up", oif, owner=name))
            for at, (number, oif) in enumerate(ops, 1)
        ]
        done = self.write(Program(WriteOptions(name), session, list(made)))
        if not owner.session or late:
            assert isinstance(done, McastdError)
            assert done.reason is Reason.SUPERSEDED
            return
        for number, oif in ops:
            self.apply(name, number, oif, by_session=True)

    @rule(name=owners, ops=ops)
    def unary(self, name: str, ops: list[tuple[int, str | None]]) -> None:
        """A unary call of an owner puts, another one deletes."""
        puts = [(number, oif) for number, oif in ops if oif is not None]
        if puts:
            self.write(PutRoutes(WriteOptions(name), [route(sg(n), "up", oif, owner=name) for n, oif in puts]))
        deletes = [number for number, oif in ops if oif is None]
        if deletes:
            self.write(DeleteRoutes(WriteOptions(name), [sg(n) for n in deletes]))
        for number, oif in [*puts, *((n, None) for n in deletes)]:
            self.apply(name, number, oif, by_session=False)

    def apply(self, name: str, number: int, oif: str | None, *, by_session: bool) -> None:
        """The model does one operation, unless the route is another's."""
        if any(number in other.routes for owner, other in self.model.items() if owner != name):
            return
        routes = self.model[name].routes
        if oif is None:
            routes.pop(number, None)
        else:
            routes[number] = Entry(name, oif, by_session)

    @rule(name=owners)
    def begin_sync(self, name: str) -> None:
        """A replay begins."""
        owner = self.model[name]
        done = self.write(BeginSync(WriteOptions(name), owner.session or 999))
        if not owner.session:
            assert isinstance(done, McastdError)
            return
        self.step(name, Event.SYNC_BEGIN)
        owner.broken = True
        for entry in owner.routes.values():
            entry.fresh = not entry.by_session

    @rule(name=owners, most=st.integers(0, 2))
    def end_sync(self, name: str, most: int) -> None:
        """A replay ends."""
        owner = self.model[name]
        done = self.write(EndSync(WriteOptions(name), owner.session or 999, most))
        stale = [number for number, entry in owner.routes.items() if not entry.fresh]
        if not owner.session or owner.state is not State.SYNCING:
            assert isinstance(done, McastdError)
            assert done.reason in {Reason.SUPERSEDED, Reason.NO_SESSION}
        elif most and len(stale) > most:
            assert isinstance(done, McastdError)
            assert done.reason is Reason.TOO_MANY_DELETIONS
        else:
            assert done == len(stale)
            self.step(name, Event.SYNC_END)
            owner.broken = False
            for number in stale:
                del owner.routes[number]

    @rule(name=owners, late=st.booleans())
    def end(self, name: str, late: bool) -> None:
        """A session ends, perhaps one that was superseded."""
        owner = self.model[name]
        self.now += 1
        self.write(EndSession(WriteOptions(name), (owner.session or 999) - late, self.now))
        if owner.session and not late:
            self.step(name, Event.END)
            owner.session, owner.hold_until = 0, self.now + HOLD

    @rule(name=owners)
    def expire(self, name: str) -> None:
        """A hold time is over, or somebody thinks so."""
        owner = self.model[name]
        done = self.write(ExpireLease(WriteOptions(name)))
        if owner.state is State.ORPHANED and owner.lease is OnExpiry.WITHDRAW:
            gone = [number for number, entry in owner.routes.items() if entry.by_session]
            assert done == len(gone)
            self.step(name, Event.WITHDRAW)
            owner.hold_until, owner.broken = 0.0, False
            for number in gone:
                del owner.routes[number]
        else:
            assert done == 0

    @rule()
    def restart(self) -> None:
        """The server dies; the next one finds sessions ended."""
        self.router.boot()
        self.now += 1
        for name, owner in self.model.items():
            self.write(EndSession(WriteOptions(name), 0, self.now))
            if owner.state in {State.CONNECTED, State.SYNCING}:
                owner.state, owner.hold_until = State.ORPHANED, self.now + HOLD
            owner.session = 0
            for entry in owner.routes.values():  # Who refreshed what is not stored, only that a replay was broken off.
                entry.fresh = not (entry.by_session and owner.broken)

    @rule()
    def settle(self) -> None:
        """The kernel has answered for everything; what it does is what the model says."""
        self.router.settle()
        for owner in self.model.values():
            for number, entry in owner.routes.items():
                assert self.router.packet(sg(number), "up") == [entry.oif]

    # --- what is always so -------------------------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        """Owners, routes, stale marks and counts."""
        desired = self.router.engine.desired
        want = {sg(n): (e.owner, e.oif) for owner in self.model.values() for n, e in owner.routes.items()}
        assert {key: (one.owner, one.paths.oifs[0].interface) for key, one in desired.routes.items()} == want
        for name, owner in self.model.items():
            record = self.record(name)
            assert (state_of(record), record.session, record.epoch, record.hold_until) == (
                owner.state,
                owner.session,
                owner.epoch,
                owner.hold_until,
            )
            orphaned = not owner.session
            stale = {n for n, e in owner.routes.items() if e.by_session and (orphaned or not e.fresh)}
            assert {n for n in owner.routes if desired.stale(desired.routes[sg(n)])} == stale
            assert desired.stale_entries(name) == len(stale)
            assert desired.session_entries(name) == sum(e.by_session for e in owner.routes.values())
            assert desired.entries.get(name, 0) == len(owner.routes)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
