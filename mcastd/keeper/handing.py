"""Taking over from the image before a re-execution: its locks, its server, and what that has not been told."""

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import NamedTuple

from mcastd.keeper import reexec, standin
from mcastd.keeper.actions import Actions
from mcastd.keeper.activation import take_listening
from mcastd.keeper.channel import Channel
from mcastd.keeper.door import ConnectedServer, Door, DoorAddress
from mcastd.keeper.failure import CannotRun
from mcastd.keeper.fdstore import Named, take_named
from mcastd.keeper.memory import Memory
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.places import Places
from mcastd.keeper.ports import Look
from mcastd.keeper.process import Server, ServerProcess
from mcastd.keeper.reexec import HandedAction, HandedServer, Handover
from mcastd.model.settings import Settings

_log = logging.getLogger(__name__)


def take_given(environ: MutableMapping[str, str]) -> tuple[Handover | None, list[Named], tuple[int, ...]]:
    """What this process was started with: by the image before it, or by the service manager; and the sockets that listen."""
    handed = reexec.take(environ)
    if handed is not None:
        return handed, handed.named, tuple(handed.listening)
    listening = take_listening(environ)
    return None, take_named(environ), listening


class InheritedServer(ServerProcess):
    """A server that the image before has started: a child of this process all the same."""

    def __init__(self, handed: HandedServer, pidfd: int) -> None:
        """Own its channel and pidfd."""
        Server.__init__(self, _channel(handed), handed.pid, handed.started_at)
        self.pidfd = pidfd


def take_server(handed: HandedServer) -> Server:
    """The server, as it was."""
    server: Server
    if handed.pidfd is None:
        server = ConnectedServer(_channel(handed), handed.pid, handed.started_at)
    else:
        server = InheritedServer(handed, handed.pidfd)
    server.ready, server.seat = handed.ready, handed.seat
    return server


def hand_server(server: Server) -> HandedServer | None:
    """What `take_server` needs; None = it is of no use any more."""
    if server.channel is None or server.ending is not None:
        return None
    return HandedServer(server.pid, server.channel.fileno(), server.pidfd, server.started_at, server.ready, server.seat)


class Outside(NamedTuple):
    """What the keeper has beside the state."""

    places: Door | Places
    listening: tuple[int, ...]
    actions: Actions
    server: Server | None


def make_handover(settings: Settings, outside: Outside, memory: Memory, outbox: Outbox, reloads: int | None) -> Handover:
    """All that the next image needs."""
    places, action, (records, losses) = outside.places, outside.actions.handed, outbox.hand_over()
    return Handover(
        settings=settings.to_json(),
        named=memory.descriptors(),
        stored=sorted(memory.store.sent),
        removals=memory.store.removals,
        lost=[[one.table, one.family, one.lost] for one in memory.parts.tables.sockets()],
        locks=places.locks() if isinstance(places, Places) else {},
        door=places.descriptors() if isinstance(places, Door) else [],
        listening=list(outside.listening),
        reloads=reloads,
        left_at=time.monotonic(),
        server=hand_server(outside.server) if outside.server is not None else None,
        action=HandedAction(settings.action, *action) if action is not None else None,
        records=records,
        losses=losses,
    )


def take_upcalls(handed: Handover, memory: Memory, outbox: Outbox) -> None:
    """What became of upcalls so far: of those before the execution, and of those that the stand-in has answered since."""
    outbox.take_over(handed.records, handed.losses)
    memory.parts.tables.lost_before(handed.lost)
    standin.relieve(handed.stand_in, memory, outbox)


def take_places(
    settings: Settings, door: DoorAddress | None, handed: Handover | None, *, restarted: bool = False
) -> tuple[Settings, Door | Places]:
    """Locks, directories, ports and door; CannotRun.

    After a re-execution, where those can't be had that are configured now, those of before and their settings. `restarted`: the
    service manager had the sockets of a daemon whose server may still be ending.
    """
    if door is not None:
        return settings, Door(door, settings, handed.door if handed is not None else ())
    if handed is None:
        return settings, Places(settings, ports=Look.NEVER if restarted else Look.PATIENTLY)
    try:
        places = Places(settings, {path: os.dup(fd) for path, fd in handed.locks.items()}, Look.ONCE)
    except CannotRun as exc:
        _log.error("what is configured now can't be used: the settings stay as they were", extra={"error": str(exc)})
        settings = Settings.from_json(handed.settings)
        return settings, Places(settings, handed.locks, Look.NEVER)
    for fd in handed.locks.values():
        os.close(fd)
    return settings, places


def start_actions(actions: Actions, path: str, handed: Handover | None) -> None:
    """Have what runs the action script: the process of the image before, if it runs the same one."""
    before = handed.action if handed is not None else None
    if before is not None:
        actions.adopt(before.pid, before.channel)
        if before.path == path:
            return
        actions.abandon()
    if path:
        actions.start(path)


def _channel(handed: HandedServer) -> Channel:
    sock = socket.socket(fileno=handed.channel)
    sock.setblocking(False)
    return Channel(sock)
