"""The server's end of the channel, with the test as the keeper."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from mcastd.keeper.actionloop import read_request
from mcastd.keeper.channel import (
    Channel,
    ChannelError,
    Frame,
    Losses,
    Message,
    UpcallRecord,
    close_all,
    encode,
    error_values,
    losses_values,
    pack_record,
    vif_map_values,
)
from mcastd.keeper.rules import take_rule
from mcastd.keeper.templates import told_values
from mcastd.kernel import rawsock
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import Rule
from mcastd.model.settings import Listen, Settings
from mcastd.model.template import TemplateChange, TemplateKey
from mcastd.runtime.keeper_client import Callbacks, KeeperClient
from tests.descriptors import open_descriptors

SETTINGS = Settings((Listen("/a"),), "/state", "me", 1, 2, change_user=False)
RECORD = UpcallRecord(3, Family.IPV4, 1, 5, b"\xe8\0\0\1", b"\x0a\0\0\1", 1.5)


@pytest.fixture(autouse=True)
def _any_socket_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multicast routing sockets need a kernel and rights; what is passed here are UDP sockets of the family."""

    def adopt(fd: int) -> socket.socket:
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_DGRAM:
            sock.detach()
            raise ValueError("no multicast routing socket")
        return sock

    monkeypatch.setattr(rawsock, "adopt", adopt)


@contextmanager
def two_sockets() -> Iterator[list[int]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as v4, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as v6:
        yield [v4.fileno(), v6.fileno()]


@dataclass
class Keeper:
    """The test's end."""

    channel: Channel
    client: KeeperClient
    upcalls: list[UpcallRecord]
    losses: list[Losses]
    shutdowns: int = 0
    ends: int = 0
    reloads: int = 0

    async def next(self) -> Frame:
        """What the client says next."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                frame = self.channel.receive()
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self.channel.fileno(), readable.set)
                await readable.wait()
                loop.remove_reader(self.channel.fileno())
            else:
                assert frame is not None
                return frame

    async def until(self, condition: str) -> None:
        """Let the loop run until an attribute is true."""
        while not getattr(self, condition):  # noqa: ASYNC110 - callbacks set them, and they are many
            await asyncio.sleep(0)


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    upcalls: list[UpcallRecord] = []
    losses: list[Losses] = []

    def on_shutdown(_keep_forwarding: bool) -> None:
        made.shutdowns += 1

    def on_end() -> None:
        made.ends += 1

    def on_reload() -> None:
        made.reloads += 1

    client = KeeperClient(
        theirs,
        Callbacks(
            upcalls=upcalls.extend,
            losses=losses.append,
            shutdown=on_shutdown,
            end=on_end,
            reload=on_reload,
        ),
    )
    made = Keeper(Channel(ours), client, upcalls, losses)
    yield made
    client.close()
    ours.close()


class TestHello:
    """Before there is a loop."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[Channel, socket.socket]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            yield Channel(ours), theirs

    def hello(self, sockets: int = 2) -> bytes:
        values = {
            "settings": SETTINGS.to_json(),
            "sockets": sockets,
            "stored": 0,
            "started_at": 5.0,
            "started_monotonic": 6.0,
            "starts": 3,
        }
        return encode(Message.HELLO, body=values)

    def test_everything_arrives(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        with two_sockets() as (v4, v6):
            ours.send(self.hello())
            ours.send(encode(Message.SOCKET, body=vif_map_values(0, Family.IPV4, ((1, 2, "eth0"),))), [v4])
            ours.send(encode(Message.SOCKET, body=vif_map_values(9, Family.IPV6, ())), [v6])
            hello = KeeperClient.receive_hello(theirs)
        assert hello.settings == SETTINGS
        assert (hello.started_at, hello.started_monotonic, hello.starts) == (5.0, 6.0, 3)
        assert {key: sock.family for key, sock in hello.sockets.items()} == {
            (0, Family.IPV4): socket.AF_INET,
            (9, Family.IPV6): socket.AF_INET6,
        }
        assert hello.vif_maps == {(0, Family.IPV4): ((1, 2, "eth0"),), (9, Family.IPV6): ()}
        for sock in hello.sockets.values():
            sock.close()

    def test_what_was_stored_comes_back_with_names_and_notes(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        values = {
            "settings": SETTINGS.to_json(),
            "sockets": 0,
            "stored": 2,
            "started_at": 5.0,
            "started_monotonic": 6.0,
            "starts": 3,
        }
        with two_sockets() as (v4, v6):
            ours.send(encode(Message.HELLO, body=values))
            ours.send(encode(Message.STORED, body={"name": "join-1", "note": "a"}), [v4])
            ours.send(encode(Message.STORED, body={"name": "join-2", "note": ""}), [v6])
            hello = KeeperClient.receive_hello(theirs)
        assert [(name, note, sock.family) for name, note, sock in hello.stored] == [
            ("join-1", "a", socket.AF_INET),
            ("join-2", "", socket.AF_INET6),
        ]
        for one in hello.stored:
            one.sock.close()

    def test_end_instead_is_an_error(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        ours.send(self.hello())
        ours.close()
        with pytest.raises(ChannelError, match="gone before its SOCKET"):
            KeeperClient.receive_hello(theirs)

    def test_other_message_instead_is_an_error(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        ours.send(encode(Message.SHUTDOWN))
        with pytest.raises(ChannelError, match="SHUTDOWN where HELLO"):
            KeeperClient.receive_hello(theirs)

    def test_socket_message_without_socket_is_an_error(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        ours.send(self.hello(1))
        ours.send(encode(Message.SOCKET, body=vif_map_values(0, Family.IPV4, ())))
        with pytest.raises(ChannelError, match="0 descriptors"):
            KeeperClient.receive_hello(theirs)

    def test_other_descriptor_is_an_error_and_closed(self, pair: tuple[Channel, socket.socket]) -> None:
        ours, theirs = pair
        before = open_descriptors()
        with socket.socket(socket.AF_UNIX) as other:
            ours.send(self.hello(1))
            ours.send(encode(Message.SOCKET, body=vif_map_values(0, Family.IPV4, ())), [other.fileno()])
            with pytest.raises(ChannelError, match="no multicast routing socket"):
                KeeperClient.receive_hello(theirs)
        assert open_descriptors() == before

    @pytest.mark.parametrize(
        "change", [{"settings": None}, {"starts": 0}, {"started_at": "now"}, {"sockets": -1}, {"stored": -1}]
    )
    def test_impossible_values_are_errors(self, pair: tuple[Channel, socket.socket], change: dict[str, object]) -> None:
        ours, theirs = pair
        values = {
            "settings": SETTINGS.to_json(),
            "sockets": 0,
            "stored": 0,
            "started_at": 5.0,
            "started_monotonic": 6.0,
            "starts": 3,
        }
        ours.send(encode(Message.HELLO, body=values | change))
        with pytest.raises(ChannelError):
            KeeperClient.receive_hello(theirs)


async def test_vif_map_is_done_when_the_keeper_says_so(keeper: Keeper) -> None:
    task = asyncio.get_running_loop().create_task(keeper.client.set_vif_map(3, Family.IPV6, ((1, 2, "eth0"),)))
    frame = await keeper.next()
    assert frame.message is Message.VIF_MAP
    assert frame.values() == {"table": 3, "family": 6, "entries": [[1, 2, "eth0"]]}
    keeper.channel.send(encode(Message.UPCALLS, body=pack_record(RECORD) * 2))
    await keeper.until("upcalls")
    assert not task.done()
    keeper.channel.send(encode(Message.REPLY, frame.request))
    await task
    assert keeper.upcalls == [RECORD, RECORD]


async def test_replies_are_told_apart(keeper: Keeper) -> None:
    first, second = (asyncio.get_running_loop().create_task(keeper.client.close_table(table)) for table in (1, 2))
    asked = [await keeper.next(), await keeper.next()]
    keeper.channel.send(
        encode(Message.REPLY, asked[1].request, error_values(McastdError(Reason.NOT_FOUND, "no table 2", table=2)))
    )
    keeper.channel.send(encode(Message.REPLY, asked[0].request))
    await first
    with pytest.raises(McastdError, match="no table 2") as caught:
        await second
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.problem.metadata == {"table": "2"}


async def test_opened_table_brings_its_sockets(keeper: Keeper) -> None:
    task = asyncio.get_running_loop().create_task(keeper.client.open_table(8))
    frame = await keeper.next()
    assert (frame.message, frame.values()) == (Message.OPEN_TABLE, {"table": 8})
    with two_sockets() as fds:
        keeper.channel.send(encode(Message.REPLY, frame.request), fds)
        sockets = await task
    assert set(sockets) == {Family.IPV4, Family.IPV6}
    for sock in sockets.values():
        sock.close()


async def test_templates_are_asked_for_until_there_are_no_more(keeper: Keeper) -> None:
    told = [
        TemplateChange(TemplateKey(3, Family.IPV4, bytes((239, n, 0, 0)), 16, bytes(4), 0, ""), bytes(8), None) for n in range(5)
    ]
    task = asyncio.get_running_loop().create_task(keeper.client.tell_templates(3, Family.IPV4))
    for first, count in ((0, 3), (3, 2)):
        frame = await keeper.next()
        assert frame.message is Message.TELL_TEMPLATES
        assert frame.values() == {"table": 3, "family": 4, "first": first}
        answer = told_values(3, Family.IPV4, told[first : first + count], len(told))
        keeper.channel.send(encode(Message.REPLY, frame.request, answer))
    assert await task == told


async def test_control_socket_comes_with_the_reply(keeper: Keeper) -> None:
    task = asyncio.get_running_loop().create_task(keeper.client.open_control("router-discovery", Family.IPV6, 2))
    frame = await keeper.next()
    assert (frame.message, frame.values()) == (Message.OPEN_CONTROL, {"kind": "router-discovery", "family": 6, "number": 2})
    with two_sockets() as fds:
        keeper.channel.send(encode(Message.REPLY, frame.request), fds[:1])
        sock = await task
    assert sock.family == socket.AF_INET
    sock.close()


async def test_sockets_that_nobody_waits_for_any_more_are_closed(keeper: Keeper) -> None:
    task = asyncio.get_running_loop().create_task(keeper.client.open_table(8))
    frame = await keeper.next()
    before = open_descriptors()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with two_sockets() as fds:
        keeper.channel.send(encode(Message.REPLY, frame.request), fds)
        keeper.channel.send(encode(Message.SHUTDOWN))
        await keeper.until("shutdowns")
    assert open_descriptors() == before


async def test_a_wish_for_the_configuration_to_be_read_again_is_passed_on(keeper: Keeper) -> None:
    keeper.channel.send(encode(Message.RELOAD))
    await keeper.until("reloads")
    assert (keeper.reloads, keeper.shutdowns, keeper.ends) == (1, 0, 0)


async def test_a_socket_is_given_away_and_comes_back(keeper: Keeper) -> None:
    before = open_descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        task = asyncio.get_running_loop().create_task(keeper.client.store_fd("join-1", "note", sock.fileno()))
        frame = await keeper.next()
        assert (frame.message, frame.values()) == (Message.STORE_FD, {"name": "join-1", "note": "note"})
        assert [os.fstat(fd).st_ino for fd in frame.fds] == [os.fstat(sock.fileno()).st_ino]
        close_all(frame.fds)
        keeper.channel.send(encode(Message.REPLY, frame.request))
        await task
    task = asyncio.get_running_loop().create_task(keeper.client.store_fd("join-1", "another", None))
    frame = await keeper.next()
    assert frame.fds == ()
    keeper.channel.send(encode(Message.REPLY, frame.request, error_values(McastdError(Reason.NOT_FOUND, "nothing is held"))))
    with pytest.raises(McastdError, match="nothing is held"):
        await task
    keeper.client.drop_fd("join-1")
    assert (await keeper.next()).values() == {"name": "join-1"}
    assert open_descriptors() == before


async def test_a_socket_on_its_way_is_not_leaked_when_the_keeper_ends(keeper: Keeper) -> None:
    before = open_descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(keeper.client.store_fd(f"join-{n}", "x" * 16_000, sock.fileno())) for n in range(100)]
        await asyncio.sleep(0)
        assert open_descriptors() > before + 1, "some wait for the channel"
        keeper.channel.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in ended} == {McastdError}
    keeper.client.close()
    assert open_descriptors() == before - 2, "both ends of the channel are closed, and nothing else stays"


async def test_rules_and_actions_are_asked_for(keeper: Keeper) -> None:
    rule = Rule(100, "eth0", 1000)
    task = asyncio.get_running_loop().create_task(keeper.client.change_rule(rule, Family.IPV6, add=True))
    frame = await keeper.next()
    assert (frame.message, take_rule(frame.values())) == (
        Message.RULE,
        (rule._replace(families=(Family.IPV6,)), Family.IPV6, True),
    )
    keeper.channel.send(encode(Message.REPLY, frame.request))
    await task
    keeper.client.run_action("install", {"MCASTD_GROUP": "239.1.1.1"})
    frame = await keeper.next()
    assert (frame.message, read_request(frame.body)) == (Message.RUN_ACTION, ("install", {"MCASTD_GROUP": "239.1.1.1"}))


async def test_losses_are_passed_on(keeper: Keeper) -> None:
    losses = Losses(3, Family.IPV6, 4, 5)
    keeper.channel.send(encode(Message.LOSSES, body=losses_values(losses)))
    await keeper.until("losses")
    assert keeper.losses == [losses]


async def test_what_the_server_says(keeper: Keeper) -> None:
    keeper.client.ready()
    keeper.client.request_shutdown(keep_forwarding=False)
    assert [(await keeper.next()).message for _ in range(2)] == [Message.READY, Message.SHUTDOWN]


async def test_end_of_the_keeper_is_told_once_and_fails_what_waits(keeper: Keeper) -> None:
    task = asyncio.get_running_loop().create_task(keeper.client.open_table(8))
    await keeper.next()
    keeper.channel.close()
    with pytest.raises(McastdError) as caught:
        await task
    assert caught.value.reason is Reason.SHUTTING_DOWN
    assert keeper.ends == 1
    keeper.client.ready()  # says nothing, and does no harm
    with pytest.raises(McastdError):
        await keeper.client.open_table(9)
    assert keeper.ends == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x", id="no message"),
        pytest.param(encode(Message.READY), id="a server's message"),
        pytest.param(encode(Message.HELLO), id="a second hello"),
        pytest.param(encode(Message.UPCALLS, body=b"x"), id="part of a record"),
        pytest.param(encode(Message.LOSSES), id="no losses"),
    ],
)
async def test_keeper_that_talks_nonsense_is_as_good_as_gone(keeper: Keeper, data: bytes) -> None:
    keeper.channel.send(data)
    await keeper.until("ends")
    assert keeper.ends == 1


async def test_slow_keeper_gets_everything_in_the_end(keeper: Keeper) -> None:
    """More than the channel holds is kept and sent when there is room."""
    entries = tuple((vif, vif + 1, f"interface{vif:05}") for vif in range(32))
    tasks = [asyncio.get_running_loop().create_task(keeper.client.set_vif_map(n, Family.IPV4, entries)) for n in range(2000)]
    await asyncio.sleep(0)
    for number in range(2000):
        frame = await keeper.next()
        assert frame.values()["table"] == number
        while not keeper.channel.send(encode(Message.REPLY, frame.request)):  # noqa: ASYNC110 - until there is room
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)


async def test_the_number_of_the_last_reload_is_remembered(keeper: Keeper) -> None:
    keeper.channel.send(encode(Message.RELOAD, 41))
    keeper.channel.send(encode(Message.RELOAD, 42))
    while keeper.reloads < 2:  # noqa: ASYNC110 - the callback counts
        await asyncio.sleep(0)
    assert keeper.client.reloads == 42
    keeper.client.notify("words", reloading=False, reloads=keeper.client.reloads)
    frame = await keeper.next()
    assert (frame.message, frame.values()) == (Message.NOTIFY, {"text": "words", "reloading": False, "reloads": 42})


async def test_a_question_that_nobody_takes_is_answered_at_once(keeper: Keeper) -> None:
    keeper.channel.send(encode(Message.PING, 7))
    frame = await keeper.next()
    assert (frame.message, frame.request) == (Message.PONG, 7)
