"""sd_notify(3) without its library."""

import logging
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.keeper.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and its address as $NOTIFY_SOCKET has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@mcastd-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(name.replace("@", "\0") if name.startswith("@") else name)
        yield sock, name


def test_states_are_sent(manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch) -> None:
    sock, name = manager
    assert Notifier(name).send("READY=1\nSTATUS=grüezi")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert Notifier().send("STOPPING=1")
    assert [sock.recv(100).decode() for _ in range(2)] == ["READY=1\nSTATUS=grüezi", "STOPPING=1"]


def test_a_full_queue_is_said_and_not_waited_for(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    notifier, sent = Notifier(name), 0
    while notifier.send(f"STATUS={sent}"):
        sent += 1
        assert sent < 100_000
    assert sock.recv(100) == b"STATUS=0"
    assert notifier.send("READY=1")


def test_a_manager_that_is_gone_is_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Notifier(str(tmp_path / "nobody")).send("READY=1")
    assert "the service manager could not be told" in caplog.text


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Notifier().send("READY=1")
