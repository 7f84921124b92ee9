"""The door: who is let in, and what is in its place."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.keeper.door import ConnectedServer, Door, DoorAddress, make_directory
from mcastd.keeper.failure import CannotRun
from mcastd.keeper.process import Server
from mcastd.model.settings import Settings


def settings(uid: int | None = None) -> Settings:
    """Of a keeper whose servers are this user."""
    uid = os.geteuid() if uid is None else uid
    return Settings(listens=(), state_dir="", user="u", uid=uid, gid=os.getegid(), change_user=False)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


class Bench:
    """A door that is open."""

    def __init__(self, path: Path, uid: int | None = None, mode: int = 0o600) -> None:
        self.path = path
        self.door = Door(DoorAddress(str(path), mode), settings(uid))
        self.selector = selectors.DefaultSelector()
        self.came: list[Server] = []
        self.why_not: str | None = None
        self.door.open(self.selector, self._take)

    def _take(self, server: Server) -> str | None:
        if self.why_not is None:
            self.came.append(server)
        return self.why_not

    def knock(self) -> socket.socket:
        """Somebody comes, and the keeper looks."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(5)
        sock.connect(str(self.path))
        for key, _ in self.selector.select(5):
            key.data()
        return sock

    def close(self) -> None:
        for server in self.came:
            server.close_channel()
        self.door.leave()
        self.selector.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "made" / "keeper.sock")
    yield made
    made.close()


def test_the_servers_user_is_let_in(bench: Bench) -> None:
    with bench.knock() as sock:
        (server,) = bench.came
        assert isinstance(server, ConnectedServer)
        assert (server.pid, server.pidfd, server.wait()) == (os.getpid(), None, 0)
        server.kill(signal.SIGTERM)
        server.kill(signal.SIGKILL)  # the end of the channel is all that there is
        assert sock.recv(9) == b""
        assert server.channel is not None
        assert server.channel.receive() is None
    assert bench.path.stat().st_mode & 0o777 == 0o600


def test_others_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid():
        pytest.skip("the socket can be given to somebody else by root alone")
    bench = Bench(tmp_path / "keeper.sock", uid=65532)
    try:
        assert bench.path.stat().st_uid == 65532
        for _ in range(2):
            with bench.knock() as sock:
                assert sock.recv(9) == b""
        assert bench.came == []
        assert [record.message for record in caplog.records].count("somebody is not let in") == 1
    finally:
        bench.close()


def test_one_too_many_is_refused(bench: Bench) -> None:
    bench.why_not = "8 servers wait already"
    with bench.knock() as sock:
        assert sock.recv(9) == b""


def test_closed_door_lets_nobody_in(bench: Bench) -> None:
    bench.door.close()
    bench.door.close()
    assert bench.selector.get_map() == {}


def test_socket_that_was_left_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    bench = Bench(path)
    bench.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sock"
    path.write_text("mine")
    with pytest.raises(CannotRun, match="is no socket: remove it"):
        Door(DoorAddress(str(path)), settings())
    assert path.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["keeper.sock"]


def test_two_doors_at_one_place_are_refused(bench: Bench) -> None:
    with pytest.raises(CannotRun, match=r"another mcastd \(pid \d+\) has"):
        Door(DoorAddress(str(bench.path)), settings())
    with bench.knock():
        assert len(bench.came) == 1


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRun, match="can't be made"):
        make_directory(str(tmp_path / "file" / "below"))
    make_directory(str(tmp_path / "a" / "b"))
    make_directory(str(tmp_path / "a" / "b"))
