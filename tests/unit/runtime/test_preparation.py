"""From the keeper's first word to HELLO, with a socket pair."""

import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from mcastd.keeper.channel import PROTOCOL, Channel, ChannelError, Message, encode
from mcastd.keeper.succession import prepare_message, take_prepared
from mcastd.model.settings import Settings
from mcastd.runtime.preparation import Own, ProtocolError, connect, receive_prepare

SETTINGS = Settings(listens=(), state_dir="/s", user="u", uid=1, gid=1, change_user=False, action="/bin/act")
OWN = Settings(listens=(), state_dir="/own", user="me", uid=2, gid=2, change_user=False, tables=(7, 9))
HELLO = {"settings": SETTINGS.to_json(), "sockets": 0, "stored": 0, "started_at": 1.0, "started_monotonic": 2.0, "starts": 1}


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    """The keeper's end, and the server's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    with ours, theirs:
        yield Channel(ours), theirs


def own(*, stand_by: bool = False) -> Own:
    """What a server has that has come by itself."""
    return Own(OWN, stand_by, nullcontext)


def prepared(ours: Channel) -> tuple[tuple[int, ...], bool]:
    """What the server has said."""
    frame = ours.receive()
    assert frame is not None
    assert frame.message is Message.PREPARED
    return take_prepared(frame.values())


def test_server_of_the_keeper_has_its_settings(pair: tuple[Channel, socket.socket]) -> None:
    ours, theirs = pair
    ours.send(prepare_message(SETTINGS, 4))
    preparation = receive_prepare(theirs)
    assert (preparation.settings, preparation.seat, preparation.stand_by) == (SETTINGS, 4, False)
    ours.send(encode(Message.HELLO, body=HELLO))
    assert preparation.wait_for_hello().settings == SETTINGS
    assert prepared(ours) == ((), False)
    with preparation.places():
        pass


@pytest.mark.parametrize("again", [False, True])
def test_a_server_knows_whether_it_follows_one_that_is_gone(pair: tuple[Channel, socket.socket], again: bool) -> None:
    ours, theirs = pair
    ours.send(prepare_message(SETTINGS, 1, again=again))
    assert receive_prepare(theirs).again is again


def test_a_keeper_that_does_not_say_so_means_one_that_serves(pair: tuple[Channel, socket.socket]) -> None:
    """Of an earlier version, which has a new server prepare itself."""
    ours, theirs = pair
    ours.send(encode(Message.PREPARE, body={"protocol": PROTOCOL, "settings": SETTINGS.to_json(), "seat": 1}))
    assert receive_prepare(theirs).again is False


@pytest.mark.parametrize("stand_by", [False, True])
def test_server_that_comes_by_itself_has_its_own_and_wants_its_tables(
    pair: tuple[Channel, socket.socket], stand_by: bool
) -> None:
    ours, theirs = pair
    ours.send(prepare_message(SETTINGS, 1))
    preparation = receive_prepare(theirs, own(stand_by=stand_by))
    ours.send(encode(Message.HELLO, body=HELLO))
    settings = preparation.wait_for_hello().settings
    assert (settings.state_dir, settings.uid, settings.action) == ("/own", 2, "/bin/act")  # the keeper runs the action
    assert prepared(ours) == ((7, 9), stand_by)
    assert preparation.stand_by is stand_by


@pytest.mark.parametrize(
    "first",
    [
        encode(Message.HELLO, body=HELLO),
        encode(Message.PREPARE, body={"protocol": PROTOCOL + 1, "settings": SETTINGS.to_json(), "seat": 1}),
    ],
)
def test_keeper_of_another_protocol_is_not_served(pair: tuple[Channel, socket.socket], first: bytes) -> None:
    ours, theirs = pair
    ours.send(first)
    with pytest.raises(ProtocolError, match="re-executed from the same installation"):
        receive_prepare(theirs)


@pytest.mark.parametrize("body", [{}, {"protocol": PROTOCOL}, {"protocol": PROTOCOL, "settings": SETTINGS.to_json(), "seat": 0}])
def test_what_can_be_no_prepare_is_an_error(pair: tuple[Channel, socket.socket], body: dict[str, object]) -> None:
    ours, theirs = pair
    ours.send(encode(Message.PREPARE, body=body))
    with pytest.raises(ChannelError):
        receive_prepare(theirs)


def test_keeper_that_hangs_up_may_not_let_in(pair: tuple[Channel, socket.socket]) -> None:
    ours, theirs = pair
    ours.close()
    with pytest.raises(ChannelError, match="may not let this user in"):
        receive_prepare(theirs)


def test_keeper_that_is_gone_before_hello(pair: tuple[Channel, socket.socket]) -> None:
    ours, theirs = pair
    ours.send(prepare_message(SETTINGS, 1))
    preparation = receive_prepare(theirs)
    ours.close()
    with pytest.raises(ChannelError, match="gone"):
        preparation.wait_for_hello()


def test_keeper_is_tried_again_and_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keeper.sock"
    slept: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 7:
                listening.bind(str(path))
                listening.listen()

        connect(str(path), sleep).close()
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert [record.message for record in caplog.records] == ["the keeper can't be reached; it is tried again"]
