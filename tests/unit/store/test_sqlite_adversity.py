"""The store killed, without room, without permission, and already taken."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from mcastd.model.errors import McastdError, Reason
from mcastd.store.sqlite import Store

CHILD = Path(__file__).with_name("child.py")
ROOT = Path(__file__).resolve().parents[3]
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""Runs a program so that permissions count: root, too, without capabilities is only the files' owner."""

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def child() -> ModuleType:
    """The child's code, for what it commits."""
    spec = importlib.util.spec_from_file_location("store_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A directory in which tests may take permissions away."""
    yield tmp_path
    for entry in (tmp_path, *tmp_path.rglob("*")):
        if entry.is_dir():
            entry.chmod(0o700)


def run(*command: str) -> Any:
    """Run to the end and return what it said last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def listing(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_what_was_acknowledged_survives_twenty_kills(tmp_path: Path, child: ModuleType) -> None:
    random = Random(11)
    for _ in range(20):
        acknowledged = 0
        with subprocess.Popen(
            [sys.executable, str(CHILD), "commit", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for _ in range(random.randrange(1, 60)):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                (acknowledged,) = json.loads(line)
            process.kill()
            for line in process.stdout:  # what was said before the blow arrived
                (acknowledged,) = json.loads(line)
        store = Store.open(tmp_path)
        stored = store.load()
        store.close()
        assert store.notice is None
        last = stored.owners["ctl"].revision
        assert last in {acknowledged, acknowledged + 1}
        expected = [route for number in range(max(1, last - 39), last + 1) for route in child.intent_at(number).puts]
        assert {key: repr(route) for key, route in stored.routes.items()} == {route.key: repr(route) for route in expected}


@pytest.mark.kernel
def test_full_file_system(tmp_path: Path) -> None:
    program = shlex.join([sys.executable, str(CHILD), "fill-file-system", str(tmp_path)])
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=1500k mcastd-test {shlex.quote(str(tmp_path))}"
    refusals, unharmed, notice, complete = run("unshare", *rights, "--mount", "sh", "-c", f"{mount} && exec {program}")
    assert [reason for reason, _ in refusals] == ["STORE_UNAVAILABLE"] * 2
    assert all(str(tmp_path / "state/state.db") in message and "make room" in message for _, message in refusals)
    assert unharmed
    assert notice is None
    assert complete


def test_limited_file_size(tmp_path: Path) -> None:
    refusals, unharmed, notice, complete = run(sys.executable, str(CHILD), "fill-limited", str(tmp_path))
    assert [reason for reason, _ in refusals] == ["STORE_UNAVAILABLE"] * 2
    assert unharmed
    assert notice is None
    assert complete


@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("present", [True, False])
def test_directory_without_permission(base: Path, mode: int, present: bool) -> None:
    state = base / "state"
    state.mkdir()
    if present:
        store = Store.open(state)
        store.begin()
        store.close()
    before = listing(state)
    state.chmod(mode)
    reason, message = run(*POWERLESS, sys.executable, str(CHILD), "open", str(state))
    state.chmod(0o700)
    assert reason == "STORE_UNAVAILABLE"
    assert str(state / "state.db") in message
    assert "for the daemon's user" in message
    assert listing(state) == before


def test_database_without_permission_to_write(base: Path) -> None:
    state = base / "state"
    Store.open(state).close()
    (state / "state.db").chmod(0o444)
    reason, message = run(*POWERLESS, sys.executable, str(CHILD), "open", str(state))
    assert reason == "STORE_UNAVAILABLE"
    assert "writable" in message
    assert [name for name in listing(state) if name.startswith("state.db.")] == []


def test_directory_that_cannot_be_made(base: Path) -> None:
    base.chmod(0o555)
    reason, message = run(*POWERLESS, sys.executable, str(CHILD), "open", str(base / "a" / "state"))
    assert reason == "STORE_UNAVAILABLE"
    assert str(base / "a/state/state.db") in message


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(McastdError, match="its parent is no directory") as refused:
            Store.open(directory)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.begin()
    reason, message = run(sys.executable, str(CHILD), "open", str(tmp_path))
    assert reason == "STORE_UNAVAILABLE"
    assert "another process has it open" in message
    store.close()
    assert run(sys.executable, str(CHILD), "open", str(tmp_path)) == ["opened", None]
