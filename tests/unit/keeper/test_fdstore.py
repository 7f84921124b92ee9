"""mcastd.keeper.fdstore: what is sent to the service manager, and what a start finds, against a manager that does as systemd."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mcastd.keeper.fdstore import FdStore, NoShelf, take_named
from tests.descriptors import open_descriptors
from tests.testbed.manager import STORE_VARIABLE, FakeManager


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with FakeManager(10) as made:
        yield made


def store_of(manager: FakeManager) -> FdStore:
    return FdStore({"NOTIFY_SOCKET": str(manager.path), STORE_VARIABLE: str(manager.store_max)})


@pytest.fixture
def store(manager: FakeManager) -> Iterator[FdStore]:
    made = store_of(manager)
    yield made
    made.close()


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Some descriptors, each of an open file of its own."""
    made = [os.memfd_create(f"test-{n}") for n in range(60)]
    yield made
    for fd in made:
        os.close(fd)


def has(manager: FakeManager, *names: str) -> None:
    manager.wait_for(lambda: manager.names() == sorted(names), 5)


def test_added_and_removed(manager: FakeManager, store: FdStore, files: list[int]) -> None:
    store.add("one", files[0])
    store.add("two", files[1])
    has(manager, "one", "two")
    assert os.path.samestat(os.fstat(manager.get("two")), os.fstat(files[1]))
    store.add("two", files[2])  # it is stored already
    store.remove("one")
    store.remove("one")
    store.remove("never stored")
    has(manager, "two")
    assert not any(one.polled for one in manager._store)
    assert store.stored == {"two"}
    store.empty()
    has(manager)
    assert [one.lines for one in manager.told].count(("FDSTOREREMOVE=1", "FDNAME=one")) == 1


def test_nothing_is_removed_any_more_once_it_is_frozen(manager: FakeManager, store: FdStore, files: list[int]) -> None:
    store.add("one", files[0])
    store.freeze()
    store.remove("one")
    store.add("two", files[1])
    store.flush()
    has(manager, "one")


def test_what_has_no_room_waits_for_some(
    manager: FakeManager, store: FdStore, files: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A fourth of it is left for what matters more."""
    for n in range(12):
        store.add(f"join-{n}", files[n], spare=True)
    has(manager, *(f"join-{n}" for n in range(8)))
    assert "too small" in caplog.text
    store.add("mroute4-5", files[20])
    store.add("mroute6-5", files[21])
    store.add("mroute4-6", files[22])
    has(manager, *(f"join-{n}" for n in range(8)), "mroute4-5", "mroute6-5")
    for n in range(3):
        store.remove(f"join-{n}")
    store.remove("join-9")  # it was never in
    has(manager, *(f"join-{n}" for n in range(3, 8)), "mroute4-5", "mroute4-6", "mroute6-5")
    assert manager.refused == []
    assert caplog.text.count("too small") == 1


def test_manager_that_is_behind_holds_up_nobody(manager: FakeManager, files: list[int]) -> None:
    store = FdStore({"NOTIFY_SOCKET": str(manager.path), "FDSTORE": "1000"})
    manager.store_max = 1000
    with manager.busy():
        began = time.monotonic()
        for n, fd in enumerate(files):
            store.add(f"join-{n}", fd)
        assert time.monotonic() - began < 0.5
        assert store.next_at() is not None
        assert len(store.sent) < len(files) == len(store.stored)
        store.remove("join-59")  # it has not been sent, and never is
        assert not store.finish(0.05)
    assert store.finish(5)
    has(manager, *(f"join-{n}" for n in range(59)))
    assert store.next_at() is None
    store.close()


def test_a_manager_that_is_behind_is_told_of_each_name_once(manager: FakeManager, store: FdStore, files: list[int]) -> None:
    store.add("kept", files[0])
    store.add("join-0", files[1])
    has(manager, "join-0", "kept")
    with manager.busy():
        while store.next_at() is None:  # until its queue is full
            store.add("filler", files[2])
            store.remove("filler")
        for n in range(1000):
            store.remove("join-0")
            store.add("join-0", files[3])
            store.add(f"join-{n + 1}", files[3])
            store.remove(f"join-{n + 1}")
        assert len(store.removals) <= 2
        assert "join-0" in store.removals
    assert store.finish(5)
    store.add("last", files[4])
    assert store.finish(5)  # its queue may be full still
    has(manager, "join-0", "kept", "last")
    assert os.fstat(manager.get("join-0")).st_ino == os.fstat(files[3]).st_ino


def test_manager_that_is_gone_is_told_of_once(files: list[int], caplog: pytest.LogCaptureFixture) -> None:
    store = FdStore({"NOTIFY_SOCKET": "/nonexistent/notify", "FDSTORE": "10"})
    before = open_descriptors()
    store.add("one", files[0])
    store.add("two", files[1])
    assert not store.flush()
    assert caplog.text.count("can't be given descriptors") == 1
    store.close()
    assert open_descriptors() == before


def test_names_that_are_none_of_ours_are_given_up(manager: FakeManager, store: FdStore, files: list[int]) -> None:
    manager.put("strange", files[0])
    store.give_up("strange")
    store.give_up("no name\nFDSTORE=1")
    has(manager)
    assert all("\n" not in line for one in manager.told for line in one.lines)


def test_abstract_address(files: list[int]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"mcastd-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        store = FdStore({"NOTIFY_SOCKET": f"@{name}", "FDSTORE": "10"})
        store.add("one", files[0])
        assert manager.recv(100) == b"FDSTORE=1\nFDPOLL=0\nFDNAME=one"
        store.close()


@pytest.mark.parametrize(
    "environment,capacity",
    [
        ({}, 0),
        ({"FDSTORE": "7"}, 0),
        ({"NOTIFY_SOCKET": "/x"}, 0),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": "7", STORE_VARIABLE: "9"}, 7),
        ({"NOTIFY_SOCKET": "/x", STORE_VARIABLE: "9"}, 9),
        ({"NOTIFY_SOCKET": "/x", STORE_VARIABLE: "0"}, 0),
        ({"NOTIFY_SOCKET": "/x", STORE_VARIABLE: "yes"}, 0),
    ],
)
def test_whether_there_is_a_store(environment: dict[str, str], capacity: int, files: list[int]) -> None:
    store = FdStore(environment)
    assert (store.capacity, store.active) == (capacity, capacity > 0)
    if not capacity:
        store.add("one", files[0])
        store.remove("one")
        assert store.finish(0)


def test_no_shelf_keeps_nothing(files: list[int]) -> None:
    NoShelf().add("one", files[0])
    NoShelf().remove("one")


def test_descriptors_of_a_start_come_with_their_names(manager: FakeManager, files: list[int]) -> None:
    for n, name in enumerate(("mroute4-0", "state", "join-1")):
        manager.put(name, files[n])
    program = (
        "import json, os; from mcastd.keeper.fdstore import take_named; "
        "print(json.dumps([take_named(os.environ), [name for name in os.environ if name.startswith('LISTEN')]]))"
    )
    options = manager.options()
    environment = {**os.environ, **options["environment"]}
    done = subprocess.run(
        [*options["prefix"], sys.executable, "-c", program],
        env=environment,
        pass_fds=options["pass_fds"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == '[[["join-1", 3], ["state", 4], ["mroute4-0", 5]], []]'


@pytest.mark.parametrize("pid", ["1", "", "x"])
def test_descriptors_of_somebody_else_are_not_taken(pid: str) -> None:
    environment = {"LISTEN_PID": pid, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "OTHER": "x"}
    assert take_named(environment) == []
    assert environment == {"OTHER": "x"}
