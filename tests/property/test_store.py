"""The store equals a dictionary: whatever is committed, compacted, crashed and opened again, in whatever order."""

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcastd.model.address import exact_key
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Pin, Stored
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import codec, database, sqlite, unwritable
from mcastd.store.reading import read_records
from mcastd.store.sqlite import Store

U64 = 2**64 - 1

names = st.sampled_from(["eth0", "eth1.100", "vlan*", "!vlan7", "br-lan", "[ab]?"]) | st.text(max_size=15)
tables = st.sampled_from([0, 1, 254, 2**32 - 1])
keys = st.builds(
    exact_key,
    tables,
    st.sampled_from([b"\xe8\0\0\1", b"\xef\xff\xff\xff"]),
    st.sampled_from([bytes(4), b"\x0a\0\0\1", b"\xff" * 4]),
) | st.builds(
    exact_key, tables, st.sampled_from([b"\xff\x0e" + bytes(14), b"\xff" * 16]), st.sampled_from([bytes(16), b"\x20" * 16])
)
paths = st.builds(Paths, names, st.lists(st.builds(Oif, names, st.integers(0, 254)), max_size=4).map(tuple))
owners = st.sampled_from(["controller", "config", "Ærø"]) | st.text(max_size=8)
any_text = st.text(st.characters(codec=None), max_size=20)  # lone surrogates too: what a file system can hand in
revisions = st.integers(0, U64)
routes = st.builds(Route, keys, paths, owners, any_text | st.just(""), st.booleans(), revisions, st.booleans())
join_keys = st.builds(
    JoinKey,
    owners,
    names,
    st.sampled_from([b"\xe8\0\0\1", b"\xff\x0e" + bytes(14)]),
    st.integers(0, 128),
    st.sampled_from([b"", b"\x0a\0\0\1", b"\xff" * 16]),
    st.integers(0, 128),
)
joins = st.builds(JoinRecord, join_keys, any_text, revisions)
owner_records = st.builds(OwnerRecord, owners, revisions, revisions)
interface_settings = st.builds(
    InterfaceSettings,
    names,
    owners,
    st.none() | st.integers(0, 254),
    revisions,
    st.lists(st.builds(Pin, st.integers(0, 2**32 - 1), st.booleans(), revisions), max_size=3).map(tuple),
)
intents = st.builds(
    Intent,
    st.lists(routes, max_size=12),
    st.lists(keys, max_size=6),
    st.lists(owner_records, max_size=2),
    st.lists(interface_settings, max_size=2),
    st.lists(joins, max_size=6),
    st.lists(join_keys, max_size=3),
)


def plain(stored: Stored) -> tuple[object, ...]:
    """Return everything stored as values that compare by value and print well."""
    return (
        {
            k: (r.key, r.paths.iif, r.paths.oifs, r.owner, r.cookie, r.monitored, r.revision, r.join)
            for k, r in stored.routes.items()
        },
        {name: (o.name, o.epoch, o.revision) for name, o in stored.owners.items()},
        stored.settings,
        stored.joins,
    )


def apply(model: Stored, intent: Intent) -> None:
    """Do to the dictionaries what the intent says."""
    for key in intent.deletes:
        model.routes.pop(key, None)
    for route in intent.puts:
        model.routes[route.key] = route
    for owner in intent.owners:
        model.owners[owner.name] = owner
    for said in intent.settings:
        model.settings[said.interface, said.owner] = said
    for join in intent.join_deletes:
        model.joins.pop(join, None)
    for record in intent.join_puts:
        model.joins[record.key] = record


def size(intent: Intent) -> tuple[int, ...]:
    """How much an intent holds of everything."""
    lists = (intent.puts, intent.deletes, intent.owners, intent.settings, intent.join_puts, intent.join_deletes)
    return tuple(len(one) for one in lists)


class StoreMachine(RuleBasedStateMachine):
    """A store and dictionaries side by side; records hold five routes, so that all is in many pieces."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where that is possible: what is tested is not the disk, and every commit waits for it.
        fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a fresh directory is made there
        self.directory = Path(tempfile.mkdtemp(prefix="mcastd-test-store-", dir=fast))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(codec, "ROUTES_MAX", 5)
        self.patch.setattr(sqlite, "ROUTES_MAX", 5)
        self.lives = 0
        self.model = Stored()
        self.starts = 0
        self.compaction: Generator[None, None, None] | None = None

    @initialize()
    def start(self) -> None:
        self.store = Store.open(self.directory / "0")
        assert self.store.notice is None

    def teardown(self) -> None:
        self.store.close()
        self.patch.undo()
        shutil.rmtree(self.directory)

    @rule(group=st.lists(intents, max_size=4))
    def commit(self, group: list[Intent]) -> None:
        before = list(map(size, group))
        self.store.commit(group)
        assert before == list(map(size, group))
        for intent in group:
            apply(self.model, intent)

    @rule()
    def begin(self) -> None:
        self.starts += 1
        assert self.store.begin() == self.starts

    @rule()
    def compact(self) -> None:
        if self.compaction is not None:
            with pytest.raises(RuntimeError, match="under way"):
                self.store.compact(self.store.mark(), [], [], [])
            return
        self.store.compact(self.store.mark(), *self._snapshot())

    @rule()
    @precondition(lambda self: self.compaction is None)
    def start_compaction(self) -> None:
        self.compaction = self.store.compaction(self.store.mark(), *self._snapshot())
        next(self.compaction)

    @rule(steps=st.integers(1, 6))
    @precondition(lambda self: self.compaction is not None)
    def continue_compaction(self, steps: int) -> None:
        assert self.compaction is not None
        for _ in range(steps):
            if next(self.compaction, "ended") == "ended":
                self.compaction = None
                break

    @rule()
    def drop_compaction(self) -> None:
        if self.compaction is not None:
            self.compaction.close()
            self.compaction = None

    @rule()
    def reopen(self) -> None:
        self.drop_compaction()
        self.store.close()
        self.store = Store.open(self.store.path.parent)

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are at this moment: what kill -9 leaves."""
        self.lives += 1
        left = self.directory / str(self.lives)
        shutil.copytree(self.store.path.parent, left)
        self.drop_compaction()
        self.store.close()
        memory = unwritable.copy(left / sqlite.DATABASE_NAME)  # As a server reads it that can't write it.
        assert plain(read_records(memory, database.verify(memory)).stored) == plain(self.model)
        memory.close()
        self.store = Store.open(left)

    @invariant()
    def is_the_same(self) -> None:
        if hasattr(self, "store"):
            assert self.store.notice is None
            assert plain(self.store.load()) == plain(self.model)

    def _snapshot(self) -> tuple[list[Route], list[OwnerRecord], list[InterfaceSettings], list[JoinRecord]]:
        model = self.model
        rest = list(model.owners.values()), list(model.settings.values()), list(model.joins.values())
        return list(model.routes.values()), *rest


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
