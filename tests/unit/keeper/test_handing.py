"""mcastd.keeper.handing: what one image hands over, the next one takes, and nothing is open twice."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcastd.keeper.actions import Actions
from mcastd.keeper.channel import Channel, Message, encode
from mcastd.keeper.door import ConnectedServer
from mcastd.keeper.failure import CannotRun
from mcastd.keeper.handing import InheritedServer, hand_server, start_actions, take_given, take_places, take_server
from mcastd.keeper.places import Places
from mcastd.keeper.process import ServerProcess
from mcastd.keeper.reexec import HandedAction, Handover
from mcastd.model.settings import Listen, Settings
from tests.descriptors import open_descriptors


def handover(**fields: Any) -> Handover:
    return Handover(**{"settings": {}, "named": [], "stored": [], "locks": {}, "listening": [], "reloads": None, **fields})


def settings(path: Path, name: str = "a") -> Settings:
    uid, gid = os.getuid(), os.getgid()
    listens = (Listen(str(path / name / "mcastd.sock")),)
    return Settings(listens=listens, state_dir=str(path / "state"), user="x", uid=uid, gid=gid, change_user=False)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    made = ServerProcess((sys.executable, "-S", "-c", "import os; os.read(3, 1)"), 5.0)
    yield made
    made.close_channel()


def test_server_stays_what_it_was(server: ServerProcess) -> None:
    server.ready, server.seat = True, 3
    handed = hand_server(server)
    assert handed is not None
    assert server.channel is not None
    channel, server.channel = server.channel, None
    again = take_server(handed)
    assert isinstance(again, InheritedServer)
    assert (again.pid, again.started_at, again.ready, again.seat) == (server.pid, 5.0, True, 3)
    assert again.channel is not None
    assert again.channel.send(encode(Message.SHUTDOWN))
    assert again.wait() == 0
    channel._sock.detach()


def test_server_that_has_come_by_itself_stays_one() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = ConnectedServer(Channel(ours), 77, 1.0)
    handed = hand_server(server)
    assert handed is not None
    again = take_server(handed)
    assert isinstance(again, ConnectedServer)
    assert again.pidfd is None
    again.close_channel()
    assert theirs.recv(1) == b""
    ours.detach()
    theirs.close()


def test_server_that_is_ending_is_not_handed_over(server: ServerProcess) -> None:
    server.close_channel()
    assert hand_server(server) is None
    assert server.wait() == 0


def test_locks_are_never_let_go_of(tmp_path: Path) -> None:
    first = Places(settings(tmp_path))
    before = open_descriptors()
    copies = {path: os.dup(fd) for path, fd in first.locks().items()}
    used, second = take_places(settings(tmp_path), None, handover(locks=copies))
    assert isinstance(second, Places)
    assert used == settings(tmp_path)
    with pytest.raises(CannotRun, match="another mcastd"):
        Places(settings(tmp_path))
    assert open_descriptors() == before + len(copies)
    second.leave()
    assert open_descriptors() == before


def test_settings_that_cannot_be_used_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Places(settings(tmp_path))
    copies = {path: os.dup(fd) for path, fd in first.locks().items()}
    (tmp_path / "b").write_text("a file")
    given = handover(locks=copies, settings=settings(tmp_path).to_json())
    used, second = take_places(settings(tmp_path, "b"), None, given)
    assert isinstance(second, Places)
    assert used == settings(tmp_path)
    assert "the settings stay as they were" in caplog.text
    with pytest.raises(CannotRun, match="another mcastd"):
        Places(settings(tmp_path))
    second.leave()


def test_another_socket_is_another_lock(tmp_path: Path) -> None:
    first = Places(settings(tmp_path))
    before = open_descriptors()
    copies = {path: os.dup(fd) for path, fd in first.locks().items()}
    _, second = take_places(settings(tmp_path, "c"), None, handover(locks=copies))
    assert isinstance(second, Places)
    assert sorted(second.locks()) == [str(tmp_path / "c" / "mcastd.sock.lock"), str(tmp_path / "state" / "lock")]
    assert open_descriptors() == before + 2
    second.leave()


def test_without_a_handover_all_is_new(tmp_path: Path) -> None:
    _, places = take_places(settings(tmp_path), None, None)
    places.leave()
    assert take_given({}) == (None, [], ())
    fd = os.memfd_create("test")
    os.write(fd, handover(listening=[70]).pack())
    handed, named, listening = take_given({"MCASTD_REEXECUTION": f"{os.getpid()}:{fd}"})
    assert handed == handover(listening=[70])
    assert (named, listening) == ([], (70,))


def test_runner_of_the_same_script_is_kept() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import os; os.read(0, 1)"], stdin=theirs.fileno())
    actions = Actions()
    start_actions(actions, "/bin/true", handover(action=HandedAction("/bin/true", child.pid, ours.detach())))
    theirs.close()
    assert actions.pids() == {child.pid}
    handed = actions.handed
    assert handed is not None
    assert handed[0] == child.pid
    start_actions(Actions(), "", handover(action=HandedAction("/bin/true", child.pid, os.dup(handed[1]))))
    actions.abandon()
    assert child.wait(20) == 0
    assert (actions.pids(), actions.handed) == (set(), None)
