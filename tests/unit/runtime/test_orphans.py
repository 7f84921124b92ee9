"""mcastd.runtime.orphans: a store that has begun anew is given what is found, durably, and only once."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcastd.core.engine import REVISION_BITS, Engine
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import LinksResync
from mcastd.model.interface import Link
from mcastd.model.join import Membership
from mcastd.model.limits import Limits
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import Intent, Stored
from mcastd.model.settings import Settings
from mcastd.model.template import TemplateChange
from mcastd.runtime import orphans
from mcastd.runtime.keeper_client import Hello
from mcastd.store.sqlite import Store

KEY = exact_key(0, pack_address("239.1.1.1"), pack_address("10.0.0.1"))
FOREIGN = exact_key(0, pack_address("239.1.1.2"), pack_address("10.0.0.1"))
NAMES = {1: "eth0", 2: "eth1"}
MEMBER = Membership(1, pack_address("239.1.1.1"), b"")


class Keeper:
    """Has no templates."""

    async def tell_templates(self, table: int, family: Family) -> list[TemplateChange]:
        assert (table, family) == (0, Family.IPV4)
        return []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hello]:
    """A table with one entry of ours, one of somebody else's and one that is not resolved."""
    entries = [
        SimpleNamespace(key=KEY, protocol=mfc_dump.PROTOCOL_OURS, unresolved=0),
        SimpleNamespace(key=FOREIGN, protocol=mfc_dump.PROTOCOL_FOREIGN, unresolved=0),
        SimpleNamespace(key=FOREIGN, protocol=mfc_dump.PROTOCOL_OURS, unresolved=1),
    ]

    class Dump(list[Any]):
        def paths_of(self, _entry: object) -> mfc_dump.MfcPaths:
            return mfc_dump.MfcPaths(1, ((2, 1),))

    monkeypatch.setattr(mfc_dump, "dump", lambda _family, _table: Dump(entries))
    with socket.socket() as sock:
        yield Hello(
            settings=Settings((), "", "", 0, 0, change_user=False),
            started_at=0.0,
            started_monotonic=0.0,
            starts=2,
            sockets={(0, Family.IPV4): sock},
            vif_maps={(0, Family.IPV4): ((0, 1, "eth0"), (1, 2, "eth1"))},
        )


async def load(store: Store, hello: Hello) -> tuple[int, Stored]:
    return await orphans.load(store, hello, Keeper(), NAMES)  # type: ignore[arg-type]


def engine_of(revision: int, stored: Stored) -> Engine:
    """An engine that has taken over a membership."""
    engine = Engine(revision >> REVISION_BITS, stored, Limits(), revision % (1 << REVISION_BITS))
    engine.links(LinksResync(tuple(Link(ifindex, name, up=True, multicast=True) for ifindex, name in NAMES.items())))
    engine.joins.adopt([MEMBER])
    return engine


async def test_what_is_found_is_stored_once(store: Store, hello: Hello, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    revision, stored = await load(store, hello)
    assert list(stored.routes) == [KEY]
    assert {(one.owner, one.revision) for one in stored.routes.values()} == {(KERNEL_OWNER, revision)}
    assert store.anew
    engine = engine_of(revision, stored)
    orphans.settle(store, engine)
    assert engine.joins.pull() is None  # The membership is wanted as it is.
    assert [key.owner for key in engine.desired.joins] == [KERNEL_OWNER]
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert (record.routes, record.joins) == (1, 1)  # type: ignore[attr-defined]
    store.close()

    again = Store.open(tmp_path)
    assert not again.anew
    _, stored = await load(again, hello)
    assert (list(stored.routes), list(stored.joins)) == ([KEY], list(engine.desired.joins))
    assert list(again.load().owners) == [KERNEL_OWNER]
    again.close()


async def test_a_server_that_is_killed_between_leaves_the_rest_to_the_next(store: Store, hello: Hello, tmp_path: Path) -> None:
    await load(store, hello)
    store.close()
    again = Store.open(tmp_path)
    assert again.anew
    revision, stored = await load(again, hello)
    assert list(stored.routes) == [KEY]
    engine = engine_of(revision, stored)
    orphans.settle(again, engine)
    assert (again.anew, len(engine.desired.joins)) == (False, 1)
    again.close()


async def test_a_store_with_a_past_takes_nothing(store: Store, hello: Hello, caplog: pytest.LogCaptureFixture) -> None:
    store.settle([])
    revision, stored = await load(store, hello)
    assert not stored.routes
    engine = engine_of(revision, stored)
    orphans.settle(store, engine)
    assert engine.joins.pull() is not None  # Left over from a crash: it goes.
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_without_room_it_is_kept_in_memory_and_the_store_stays_anew(
    store: Store, hello: Hello, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_intents: list[Intent]) -> None:
        raise McastdError(Reason.STORE_UNAVAILABLE, "full")

    monkeypatch.setattr(store, "commit", full)
    monkeypatch.setattr(store, "settle", full)
    revision, stored = await load(store, hello)
    assert list(stored.routes) == [KEY]
    engine = engine_of(revision, stored)
    orphans.settle(store, engine)
    assert engine.joins.pull() is None
    assert [key.owner for key in engine.desired.joins] == [KERNEL_OWNER]
    assert store.anew
    assert not store.load().routes
