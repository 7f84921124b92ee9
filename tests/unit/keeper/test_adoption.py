"""mcastd.keeper.adoption: what is taken for what, by its name. On the real kernel: tests/e2e/test_keeper_survival.py."""

import contextlib
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.keeper.adoption import adopt
from mcastd.keeper.controls import Controls
from mcastd.keeper.fdstore import FdStore, Named
from mcastd.keeper.held import Held
from mcastd.keeper.memory import STATE_NAME, Memory, Parts, new_run
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.rules import PolicyRules
from mcastd.keeper.statelog import StateLog
from mcastd.keeper.tables import Tables
from tests.testbed.manager import STORE_VARIABLE, FakeManager


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with FakeManager() as made:
        yield made


@pytest.fixture
def memory(manager: FakeManager) -> Iterator[Memory]:
    selector = selectors.DefaultSelector()
    store = FdStore({"NOTIFY_SOCKET": str(manager.path), STORE_VARIABLE: "100"})
    made = Memory(store, Parts(Tables(selector, Outbox()), Held(), PolicyRules(), Controls()), new_run())
    yield made
    made.parts.held.close_all()
    made.close()
    selector.close()


def inodes() -> set[int]:
    """Of all sockets that this process has."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.fstat(int(path.name)).st_ino)
    return found


def udp() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "stored",
        "mroute5-0",
        "mroute4-",
        "mroute4-01",
        "mroute4-1000000000",
        "join-",
        "join-x",
        "router-discovery4-64",
        "router-discovery4-x",
        "router-discovery5-0",
    ],
)
def test_strange_names_are_closed(memory: Memory, manager: FakeManager, caplog: pytest.LogCaptureFixture, name: str) -> None:
    fd = udp()
    inode = os.fstat(fd).st_ino
    if name:
        manager.put(name, fd)
    adopt([Named(name, fd)], memory)
    assert "is not known here: it is closed" in caplog.text
    manager.wait_for(lambda: manager.names() == [STATE_NAME])
    assert inode not in inodes()


@pytest.mark.parametrize("name", ["mroute4-0", "mroute6-77", "router-discovery4-0", "router-discovery6-63"])
def test_what_is_not_what_its_name_says_is_closed(
    memory: Memory, manager: FakeManager, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fd = udp()
    inode = os.fstat(fd).st_ino
    manager.put(name, fd)
    adopt([Named(name, fd)], memory)
    assert "can't be used: it is closed" in caplog.text
    manager.wait_for(lambda: manager.names() == [STATE_NAME])
    assert inode not in inodes()


def test_join_sockets_come_with_their_notes(memory: Memory, manager: FakeManager) -> None:
    log = StateLog.create()
    log.append(13, b'{"name": "join-3", "note": "2/ef010101"}')
    adopt([Named(STATE_NAME, log.fd), Named("join-3", udp()), Named("join-4", udp())], memory)
    held = memory.parts.held
    assert {name: held.note(name) for name in held.names()} == {"join-3": "2/ef010101", "join-4": ""}
    assert memory.store.stored == {STATE_NAME, "join-3", "join-4"}
    assert manager.told == []


def test_second_of_a_name_is_closed_and_the_first_kept(memory: Memory, manager: FakeManager) -> None:
    first, second = udp(), udp()
    kept, closed = os.fstat(first).st_ino, os.fstat(second).st_ino
    adopt([Named("join-3", first), Named("join-3", second)], memory)
    assert memory.parts.held.names() == ["join-3"]
    assert kept in inodes()
    assert closed not in inodes()
    manager.wait_for(lambda: manager.names() == [STATE_NAME])


def test_what_the_image_before_could_not_have_removed_is_removed_before_its_name_is_used_again(
    memory: Memory, manager: FakeManager
) -> None:
    fd = udp()
    for name in ("join-1", "join-2"):
        manager.put(name, fd)
    os.close(fd)
    again = udp()
    inode = os.fstat(again).st_ino
    adopt([Named("join-1", again)], memory, [], ["join-1", "join-2"])
    manager.wait_for(lambda: sorted(manager.names()) == ["join-1", "state"], 5)
    assert os.fstat(manager.get("join-1")).st_ino == inode


def test_first_start_says_nothing(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    adopt([], memory)
    assert caplog.text == ""
    assert [one.name for one in memory.descriptors()] == [STATE_NAME]


def test_what_the_manager_lacks_after_a_reexecution_is_sent(memory: Memory, manager: FakeManager) -> None:
    log = StateLog.create()
    adopt([Named(STATE_NAME, log.fd), Named("join-3", udp())], memory, [STATE_NAME])
    manager.wait_for(lambda: manager.names() == ["join-3"])
