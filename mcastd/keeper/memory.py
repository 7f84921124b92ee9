"""What outlives the keeper: its descriptors, in the service manager's store or handed to its next image, and a log of its state.

The log repeats the server's own messages: what they say is what the next keeper has to know, and it reads them as this one did.
So recording costs one short write; when the log has grown, a snapshot of all is put behind it, a little at a time.
"""

import errno
import json
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from mcastd.keeper import tables
from mcastd.keeper.channel import ChannelError, Message, vif_map_values
from mcastd.keeper.controls import Controls
from mcastd.keeper.fdstore import FdStore, Named
from mcastd.keeper.held import Held
from mcastd.keeper.rules import PolicyRules, rule_values
from mcastd.keeper.statelog import Record, StateLog, UnreadableState
from mcastd.keeper.tables import Tables
from mcastd.keeper.templates import bodies, learned_bodies
from mcastd.model.address import Family

STATE_NAME = "state"
"""Of the log among the descriptors."""

RUN = 128
"""Kind of the record with what is known of the run; the other kinds are the numbers of messages of the channel."""

RECORDED = frozenset(
    {
        Message.VIF_MAP,
        Message.CLOSE_TABLE,
        Message.TEMPLATES,
        Message.LEARNED,
        Message.STORE_FD,
        Message.DROP_FD,
        Message.RULE,
    }
)

SNAPSHOT_FROM = 256 << 10
"""Bytes of log that are not worth a snapshot; more where the last one was large."""

SPARE = 64 << 20
PER_TEMPLATE = 1024
"""Bytes that the log never exceeds, and bytes for each template beside: it holds some 160 of each, and a few times as much before
the next snapshot."""

_GROWTH = 4
_SLICE = 16
"""Templates, or whatever else, written in one step: some 50 us."""

_log = logging.getLogger(__name__)


END_SECONDS = 2.0
"""How long the end waits for a service manager that is behind."""


class Run(NamedTuple):
    """What is known of the daemon's run, which began when its tables were opened."""

    started_at: float
    """Seconds since the epoch."""
    started_monotonic: float
    starts: int
    """Servers so far."""


def new_run() -> Run:
    """One that begins now."""
    return Run(time.time(), time.monotonic(), 0)


class Parts(NamedTuple):
    """What the state is the state of."""

    tables: Tables
    held: Held
    rules: PolicyRules
    controls: Controls


class Memory:
    """The log, kept current, and the descriptors' shelf."""

    def __init__(self, store: FdStore, parts: Parts, run: Run) -> None:
        """Nothing is recorded before `begin`."""
        self.store = store
        self.run = run
        self.parts = parts
        self._for_good = False
        self._log: StateLog | None = None
        self._snapshot: Iterator[tuple[int, bytes]] | None = None
        self._snapshot_at = 0
        self._snapshot_size = 0

    @property
    def keeps(self) -> bool:
        """Whether forwarding goes on when this process ends in order; may be set to False."""
        return self.store.active and not self._for_good

    @keeps.setter
    def keeps(self, value: bool) -> None:
        self._for_good = not value

    def begin(self, log: StateLog | None) -> None:
        """Record from now on, in the log that was found or in a new one; what is open by now goes to the store."""
        parts = self.parts
        try:
            if log is None:
                self.store.remove(STATE_NAME)
                log = StateLog.create()
            self._log = log
            self.store.add(STATE_NAME, log.fd)
            self._snapshot_size = log.size
        except OSError as exc:
            _log.error("the state of the keeper can't be recorded: its restart will cost routes", extra={"error": exc.strerror})
        for part in (parts.tables, parts.held, parts.controls):
            part.put_on(self.store)
        parts.tables.on_learned = self._learned
        if log is not None and not log.size:
            self._write_all()

    def ensure(self) -> None:
        """Have a log, also where it was given up; OSError if there still is no memory for it."""
        if self._log is None:
            self._log = StateLog.create()
            self._write_all()
        if self._log is None:
            raise OSError(errno.ENOMEM, "the state can't be recorded")
        self.store.add(STATE_NAME, self._log.fd)

    def record(self, message: Message, body: bytes) -> None:
        """Remember what a server has said, once it is so; ChannelError where it says more than can be kept short."""
        if message in RECORDED:
            self._append(message, body)
            if self._log is not None and self._log.size > SPARE:
                self._check_size(self._log.size)

    def started_server(self) -> Run:
        """Count a server, which says anew what the last one was about to say."""
        for one in self.parts.tables.sockets():
            one.fastpath.abandon()
        self.run = self.run._replace(starts=self.run.starts + 1)
        self._append(RUN, _run_body(self.run))
        return self.run

    def descriptors(self) -> list[Named]:
        """All that a next image needs, by name."""
        parts = self.parts
        found = [Named(tables.socket_name(one.table, one.family), one.sock.fileno()) for one in parts.tables.sockets()]
        found += [Named(name, fd) for part in (parts.held, parts.controls) for name, fd in part.descriptors()]
        return found + ([Named(STATE_NAME, self._log.fd)] if self._log is not None else [])

    def next_at(self) -> float | None:
        """When `keep_times` is to be called again."""
        return 0.0 if self.wants_step() else self.store.next_at()

    def keep_times(self, now: float) -> None:
        """Do a little of what waits."""
        retry_at = self.store.next_at()
        if retry_at is not None and retry_at <= now:
            self.store.flush()
        if self.wants_step():
            self.step()

    def wants_step(self) -> bool:
        """Whether `step` has something to do."""
        if self._snapshot is not None:
            return True
        if self._log is None or self._log.size <= max(SNAPSHOT_FROM, _GROWTH * self._snapshot_size):
            return False
        # While a new set is coming in its first parts would be cut off.
        return not any(one.fastpath.staging for one in self.parts.tables.sockets())

    def step(self) -> None:
        """Write a piece of the snapshot that makes the log shorter."""
        if self._snapshot is None:
            self._begin_snapshot()
        log, snapshot = self._log, self._snapshot
        if log is None or snapshot is None:
            return
        piece = next(snapshot, None)
        if piece is not None:
            self._append(*piece)
            return
        self._snapshot = None
        self._snapshot_size = log.end - self._snapshot_at
        try:
            log.begin_at(self._snapshot_at)
        except OSError as exc:
            self._give_up(exc)

    def end(self) -> None:
        """Let go of everything: what the store has forwards on; without one, or where the end is for good, nothing is left."""
        parts, keeps = self.parts, self.keeps
        if keeps:
            _log.info("the service manager keeps what forwards", extra={"descriptors": len(self.store.stored)})
            self.store.finish(END_SECONDS)
            self.store.freeze()
        parts.tables.close_all()
        parts.controls.close_all()
        parts.held.close_all()
        if not keeps:
            parts.rules.delete_all()
            self.store.empty()
            self.store.finish(END_SECONDS)
        self.close()

    def close(self) -> None:
        """Close our descriptors; what is stored stays stored."""
        self.store.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _learned(self, table: int, family: Family, made: dict[bytes, int]) -> None:
        for body in learned_bodies(table, family, made.items()):
            self._append(Message.LEARNED, body)

    def _write_all(self) -> None:
        self._begin_snapshot()
        while self._snapshot is not None:
            self.step()

    def _begin_snapshot(self) -> None:
        if self._log is not None:
            self._snapshot_at, self._snapshot = self._log.end, self._pieces()

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """All that is so, as messages; what changes meanwhile is behind it in the log, or in it already, which does no harm."""
        parts = self.parts
        yield RUN, _run_body(self.run)
        for one in parts.tables.sockets():
            yield Message.VIF_MAP, _json(vif_map_values(one.table, one.family, one.vif_map))
            keys = one.fastpath.keys()
            for at in range(0, len(keys), _SLICE):
                changes = list(filter(None, map(one.fastpath.template, keys[at : at + _SLICE])))
                for body in bodies(one.table, one.family, changes, whole=False):
                    yield Message.TEMPLATES, body
        for name in parts.held.names():
            note = parts.held.note(name)
            if note is not None:
                yield Message.STORE_FD, _json({"name": name, "note": note})
        for rule, family in parts.rules.rules():
            yield Message.RULE, _json(rule_values(rule, family, add=True))

    def _append(self, kind: int, body: bytes) -> None:
        if self._log is None:
            return
        try:
            self._log.append(kind, body)
        except OSError as exc:
            self._give_up(exc)

    def _check_size(self, size: int) -> None:
        """A server says things anew faster than snapshots are made, or never ends a set: none does that has its wits about it."""
        if size > SPARE + PER_TEMPLATE * self.parts.tables.templates():
            raise ChannelError(f"it has said {size} bytes of things that are to be remembered, again and again")

    def _give_up(self, exc: OSError) -> None:
        """Half a state is worse than none: a VIF map that is not so would send packets where they do not belong."""
        _log.error(
            "the state of the keeper can't be recorded any more: its restart will cost routes", extra={"error": exc.strerror}
        )
        log, self._log, self._snapshot = self._log, None, None
        if log is None:
            return
        try:
            log.spoil()
        except OSError as again:
            _log.error("nor can the log be marked as useless", extra={"error": again.strerror})
        self.store.remove(STATE_NAME)
        log.close()


class Replayed(NamedTuple):
    """What a log says beside what is in force by its reading."""

    notes: dict[str, str]
    """Notes of held descriptors by name."""
    run: Run | None


def replay(log: StateLog, parts: Parts) -> Replayed:
    """Have the parts know what a log says; their sockets are open by now. UnreadableState where the log is damaged."""
    notes: dict[str, str] = {}
    run: Run | None = None
    for record in log.records():
        try:
            if record.kind == RUN:
                run = _read_run(record)
            else:
                _replay_message(record, parts, notes)
        except (ChannelError, ValueError) as exc:
            raise UnreadableState(f"a record of kind {record.kind} says what no server may say: {exc}") from exc
    return Replayed(notes, run)


def _replay_message(record: Record, parts: Parts, notes: dict[str, str]) -> None:
    match Message(record.kind):
        case Message.VIF_MAP | Message.CLOSE_TABLE | Message.TEMPLATES | Message.LEARNED as message:
            parts.tables.replay(message, record.body)
        case Message.STORE_FD:
            values = _values(record.body)
            notes[str(values.get("name"))] = str(values.get("note"))
        case Message.DROP_FD:
            notes.pop(str(_values(record.body).get("name")), None)
        case Message.RULE:
            parts.rules.remember(_values(record.body))
        case message:
            msg = f"{message.name} is never recorded"
            raise ValueError(msg)


def _run_body(run: Run) -> bytes:
    return _json(run._asdict())


def _read_run(record: Record) -> Run:
    values = _values(record.body)
    try:
        return Run(float(values["started_at"]), float(values["started_monotonic"]), int(values["starts"]))
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{values!r} is nothing of a run") from exc


def _json(values: object) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def _values(body: bytes) -> dict[str, Any]:
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - what it holds is wrong, not its type here
    return values
