"""Router discovery at work: interfaces and settings as they are, the timers of core/router_discovery.py, the keeper's sockets.

Looks a few times a second at what is wanted, rather than being told: so whoever writes settings needs to know nothing of it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from socket import socket

from mcastd.core.engine import Engine
from mcastd.core.router_discovery import FAILURES_MAX, Discovery, Place, Sending
from mcastd.kernel.router_discovery import ControlSocket
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.router_discovery import CONTROL_KIND, CONTROL_NUMBER_MAX, Message

LOOK_SECONDS = 0.5
"""Between two looks at interfaces and settings; costs nothing to speak of where no interface asks for discovery."""

RETRY_SECONDS = 10.0
"""Between two tries to open a control socket or to join the routers' group on an interface."""

OpenControl = Callable[[str, Family, int], Awaitable[socket]]
"""A control socket by kind, family and number, from the keeper; McastdError if that can't be."""

_LIMITS = {Family.IPV4: "net.ipv4.igmp_max_memberships", Family.IPV6: "net.core.optmem_max"}

_log = logging.getLogger(__name__)


class RouterDiscovery:
    """Speaks on the interfaces where settings ask for it."""

    def __init__(self, engine: Engine, open_control: OpenControl, *, restarted: bool) -> None:
        """Serve this engine's settings; `restarted`: a server before this one has spoken already."""
        self._engine = engine
        self._open_control = open_control
        self._discovery = Discovery(engine.limits.router_discovery_interval, random.SystemRandom().random, restarted=restarted)
        self._sockets: dict[Family, list[ControlSocket]] = {family: [] for family in Family}
        self._members: set[Place] = set()
        """Where the routers' group is joined."""
        self._useless: set[Family] = set()
        """Families whose newest socket has joined nothing so far: another one would do no better."""
        self._retry_at: dict[Place, float] = {}
        self._refused: dict[Family, str] = {}
        """Why control sockets can't be had, as the log has it."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look, send and listen until cancelled."""
        while True:
            self._update()
            await self._keep_members()
            self._send_due()
            try:
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def stop(self) -> None:
        """Tell of the router's end wherever it has spoken, and say nothing more."""
        self._discovery.stop()
        self._send_due()

    def close(self) -> None:
        """Let go of the sockets; the keeper's copies keep what they have joined."""
        for control in (one for sockets in self._sockets.values() for one in sockets):
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        for sockets in self._sockets.values():
            sockets.clear()
        self._members.clear()

    def _patience(self) -> float:
        due = self._discovery.next_due()
        return LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - time.monotonic()))

    def _update(self) -> None:
        """Tell the timers what is wanted and what is up now."""
        world = self._engine.world
        if not world.discovery and not self._discovery.places:
            return
        links = [link for name in world.discovery if (link := world.by_name.get(name)) is not None]
        wanted = {link.ifindex for link in links if link.multicast}
        up = {link.ifindex for link in links if link.up}
        up |= {
            place.ifindex
            for place in self._discovery.places
            if (link := world.by_index.get(place.ifindex)) is not None and link.up
        }
        self._discovery.interval = self._engine.limits.router_discovery_interval
        self._discovery.update(wanted, up, time.monotonic())

    def _send_due(self) -> None:
        for sending in self._discovery.pull(time.monotonic()):
            sent = self._send(sending)
            failures = self._discovery.push(sending, sent=sent, now=time.monotonic())
            if failures == FAILURES_MAX:
                where = self._where(sending.place)
                _log.warning("router discovery can't advertise on an interface; it is tried again", extra=where)

    def _send(self, sending: Sending) -> bool:
        message, place = sending
        sockets = self._sockets[place.family]
        if not sockets:
            return False
        try:
            sockets[0].send(message, place.ifindex, self._discovery.interval)
        except OSError as exc:
            details = {**self._where(place), "message": message.name.lower(), "error": exc.strerror}
            _log.debug("a message of router discovery could not be sent", extra=details)
            return False
        if message is Message.TERMINATION:
            _log.info("router discovery ends on an interface", extra=self._where(place))
        return True

    async def _keep_members(self) -> None:
        """Be a member of the routers' group just where this router speaks, so that solicitations come in."""
        now, places = time.monotonic(), self._discovery.places
        for place in [place for place in self._retry_at if place not in places]:
            del self._retry_at[place]
        for place in self._members - places:
            self._members.discard(place)
            await asyncio.to_thread(_leave, list(self._sockets[place.family]), [place.ifindex])
        for place in sorted(places - self._members):
            if self._retry_at.get(place, 0.0) <= now:
                self._retry_at[place] = now + RETRY_SECONDS
                if await self._join(place):
                    self._members.add(place)

    async def _join(self, place: Place) -> bool:
        """Join by the first socket that has room, a new one if none has; False if that can't be."""
        family, sockets = place.family, self._sockets[place.family]
        try:
            for number in range(len(sockets) + 1):
                if number == len(sockets):
                    if family in self._useless or number > CONTROL_NUMBER_MAX:
                        break
                    await self._open(family)
                    self._useless.add(family)
                if await asyncio.to_thread(sockets[number].join, place.ifindex):
                    if number == len(sockets) - 1:
                        self._useless.discard(family)
                    return True
            self._refuse(family, f"no socket has room for the routers' group on more interfaces: raise {_LIMITS[family]}")
        except McastdError as exc:
            self._refuse(family, str(exc))
        except OSError as exc:
            details = {**self._where(place), "error": exc.strerror}
            _log.info("the routers' group can't be joined on an interface; it is tried again", extra=details)
        return False

    def _refuse(self, family: Family, error: str) -> None:
        if self._refused.get(family) != error:
            self._refused[family] = error
            _log.warning("router discovery has no socket; it is tried again", extra={"error": error})

    async def _open(self, family: Family) -> None:
        """Take one more control socket, and rid it of what a server before this one has joined for what is wanted no more."""
        sockets = self._sockets[family]
        control = ControlSocket(await self._open_control(CONTROL_KIND, family, len(sockets)), family)
        sockets.append(control)
        asyncio.get_running_loop().add_reader(control, self._read, control, family)
        places = self._discovery.places
        strange = [index for index in self._engine.world.by_index if Place(index, family) not in places]
        await asyncio.to_thread(_leave, [control], strange)

    def _read(self, control: ControlSocket, family: Family) -> None:
        try:
            solicited = control.receive()
        except OSError as exc:  # an error of the socket is reported once, then it works on
            _log.debug("reading solicitations failed", extra={"error": exc.strerror})
            return
        now = time.monotonic()
        for ifindex in solicited:
            self._discovery.solicited(Place(ifindex, family), now)
        if solicited:
            self._wake.set()

    def _where(self, place: Place) -> dict[str, object]:
        link = self._engine.world.by_index.get(place.ifindex)
        return {"interface": link.name if link is not None else "", "ifindex": place.ifindex, "family": place.family.name}


def _leave(controls: list[ControlSocket], indexes: list[int]) -> None:
    """Be a member on these interfaces by none of the sockets; in a thread."""
    for control in controls:
        for ifindex in indexes:
            try:
                control.leave(ifindex)
            except OSError as exc:
                _log.warning("the routers' group can't be left", extra={"ifindex": ifindex, "error": exc.strerror})
