"""What the keeper holds for servers: only UDP sockets, only so many, and nothing leaks."""

import os
import socket
from collections.abc import Iterator

import pytest

from mcastd.keeper.channel import ChannelError, Message, decode
from mcastd.keeper.held import NOTE_MAX, Held, HeldRequest, take_name, take_request
from mcastd.model.errors import McastdError, Reason
from tests.descriptors import open_descriptors


@pytest.fixture
def held() -> Iterator[Held]:
    before = open_descriptors()
    made = Held(most=3)
    yield made
    made.close_all()
    assert open_descriptors() == before


def udp(family: int = socket.AF_INET) -> int:
    return socket.socket(family, socket.SOCK_DGRAM).detach()


def contents(held: Held) -> list[tuple[str, str, int]]:
    out = []
    for data, fd in held.messages():
        frame = decode(data)
        assert frame.message is Message.STORED
        values = frame.values()
        out.append((values["name"], values["note"], os.fstat(fd).st_ino))
    return out


def test_what_is_stored_is_told_to_the_next_server_with_its_last_note(held: Held) -> None:
    four, six = udp(), udp(socket.AF_INET6)
    inodes = [os.fstat(fd).st_ino for fd in (four, six)]
    held.store(HeldRequest("join-1", "first"), (four,))
    held.store(HeldRequest("join-2", ""), (six,))
    held.store(HeldRequest("join-1", "second"), ())
    assert contents(held) == [("join-1", "second", inodes[0]), ("join-2", "", inodes[1])]
    held.drop("join-1")
    held.drop("join-1")
    assert contents(held) == [("join-2", "", inodes[1])]
    assert len(held) == 1


@pytest.mark.parametrize(
    "kind, words",
    [
        ((socket.AF_UNIX, socket.SOCK_DGRAM), "only UDP sockets"),
        ((socket.AF_INET, socket.SOCK_STREAM), "only UDP sockets"),
        (None, "no socket"),
    ],
)
def test_nothing_but_a_udp_socket_is_held(held: Held, kind: tuple[int, int] | None, words: str) -> None:
    fd = os.open("/dev/null", os.O_RDONLY) if kind is None else socket.socket(*kind).detach()
    with pytest.raises(McastdError, match=words) as refused:
        held.store(HeldRequest("join-1", ""), (fd,))
    assert refused.value.reason is Reason.INVALID_VALUE
    assert contents(held) == []


@pytest.mark.parametrize(
    "name, note, count, reason",
    [
        ("here", "", 1, Reason.INVALID_VALUE),
        ("new", "", 2, Reason.INVALID_VALUE),
        ("new", "", 0, Reason.NOT_FOUND),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_its_descriptors_are_closed(
    held: Held, name: str, note: str, count: int, reason: Reason
) -> None:
    held.store(HeldRequest("here", "note"), (udp(),))
    before = contents(held)
    with pytest.raises(McastdError) as refused:
        held.store(HeldRequest(name, note), tuple(udp() for _ in range(count)))
    assert refused.value.reason is reason
    assert contents(held) == before


def test_there_are_only_so_many(held: Held) -> None:
    for number in range(3):
        held.store(HeldRequest(f"join-{number}", ""), (udp(),))
    with pytest.raises(McastdError, match="3 descriptors are held, which is the limit") as refused:
        held.store(HeldRequest("join-4", ""), (udp(),))
    assert refused.value.reason is Reason.TOO_MANY_ITEMS
    held.store(HeldRequest("join-0", "a note is not one more"), ())
    held.drop("join-2")
    held.store(HeldRequest("join-4", ""), (udp(),))


def test_all_notes_together_have_a_limit(monkeypatch: pytest.MonkeyPatch, held: Held) -> None:
    monkeypatch.setattr("mcastd.keeper.held.NOTES_MAX", 100)
    held.store(HeldRequest("join-1", "x" * 60), (udp(),))
    with pytest.raises(McastdError, match="longer than 100 characters") as refused:
        held.store(HeldRequest("join-2", "x" * 41), (udp(),))
    assert refused.value.reason is Reason.TOO_MANY_ITEMS
    held.store(HeldRequest("join-1", "x" * 30), ())
    held.store(HeldRequest("join-2", "x" * 70), (udp(),))
    held.drop("join-1")
    held.store(HeldRequest("join-2", "x" * 100), ())


@pytest.mark.parametrize("name", [None, 5, "", "Join-1", "a:b", "a\n", "x" * 65])
def test_names_are_those_that_a_store_of_descriptors_takes(name: object) -> None:
    with pytest.raises(ChannelError, match="not a name"):
        take_name({"name": name})


@pytest.mark.parametrize("note", [None, 5, "ü", "x" * (NOTE_MAX + 1)])
def test_notes_are_bounded(note: object) -> None:
    with pytest.raises(ChannelError, match="a note has at most"):
        take_request({"name": "join-1", "note": note})
    assert take_request({"name": "join-1", "note": "x" * NOTE_MAX}) == HeldRequest("join-1", "x" * NOTE_MAX)
