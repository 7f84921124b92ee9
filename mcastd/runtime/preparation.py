"""Before a server serves: from the keeper's first word, PREPARE, to HELLO, and what differs where it has come by itself.

A server that the keeper has started takes its settings from it. One that runs in another container has its own, reads its own
configuration file, and makes and locks the directories of its sockets and its state itself, when it is its turn.
"""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from mcastd.keeper.channel import PROTOCOL, Channel, ChannelError, Frame, Message, close_all, encode, take_int
from mcastd.model.settings import SEATS_MAX, Settings
from mcastd.runtime.keeper_client import Hello, KeeperClient

FIRST_RETRY = 0.1
LAST_RETRY = 2.0
"""Seconds between two tries to reach the keeper, at first and at most."""

_log = logging.getLogger(__name__)


class ProtocolError(ChannelError):
    """Keeper and server are of versions that do not understand each other."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a server brings along that has come by itself."""

    settings: Settings
    stand_by: bool
    """Whether it waits for the end of the one that serves, instead of taking over."""
    places: Callable[[], AbstractContextManager[object]]
    """Makes and locks its directories, for as long as it serves."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a server knows before its HELLO."""

    channel: socket.socket
    settings: Settings
    seat: int
    """Tells it from others that run at the same time."""
    own: Own | None = None
    again: bool = False
    """Whether it follows one that is gone, so that nobody serves until it does."""

    @property
    def stand_by(self) -> bool:
        """Whether it waits for the end of the one that serves."""
        return self.own is not None and self.own.stand_by

    def places(self) -> AbstractContextManager[object]:
        """Directories and locks, for as long as this server serves; the keeper has seen to them where it started the server."""
        return nullcontext() if self.own is None else self.own.places()

    def wait_for_hello(self) -> Hello:
        """Say that all is prepared, and wait until it is this server's turn; nothing else runs meanwhile. ChannelError."""
        tables = [] if self.own is None else list(self.settings.tables)
        body = {"protocol": PROTOCOL, "tables": tables, "stand_by": self.stand_by}
        try:
            Channel(self.channel).send(encode(Message.PREPARED, body=body))
        except OSError as exc:
            raise ChannelError(f"the keeper is gone: {exc.strerror}") from exc
        hello = KeeperClient.receive_hello(self.channel)
        hello.settings = self.settings
        return hello


def receive_prepare(channel: socket.socket, own: Own | None = None) -> Preparation:
    """Wait for the keeper's first word. Raises ChannelError, and ProtocolError where it is of another version."""
    channel.setblocking(True)
    frame: Frame | None
    try:
        frame = Channel(channel).receive()
    except OSError as exc:
        raise ChannelError(f"the keeper can't be heard: {exc.strerror}") from exc
    if frame is None:
        raise ChannelError("the keeper has hung up before its first word: it may not let this user in (its log says so)")
    close_all(frame.fds)
    if frame.message is not Message.PREPARE:
        raise ProtocolError(f"the keeper's first word is {frame.message.name}, not PREPARE: {_REMEDY}")
    values = frame.values()
    protocol = take_int(values, "protocol", 0, 2**31)
    if protocol != PROTOCOL:
        raise ProtocolError(f"the keeper speaks protocol {protocol}, and this server {PROTOCOL}: {_REMEDY}")
    told = values.get("settings")
    if not isinstance(told, dict):
        raise ChannelError("PREPARE has no settings")
    settings = Settings.from_json(told)
    if own is not None:
        settings = replace(own.settings, action=settings.action)
    return Preparation(channel, settings, take_int(values, "seat", 1, SEATS_MAX), own, values.get("again") is True)


_REMEDY = "have the keeper re-executed from the same installation (kill -USR1), or start it again"


def connect(path: str, sleep: Callable[[float], None] = time.sleep) -> socket.socket:
    """Reach the keeper at its door, however long it takes."""
    delay, told = FIRST_RETRY, ""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError as exc:
            sock.close()
            if told != str(exc.strerror):
                told = str(exc.strerror)
                _log.warning("the keeper can't be reached; it is tried again", extra={"path": path, "error": told})
            sleep(delay)
            delay = min(2 * delay, LAST_RETRY)
        else:
            return sock
