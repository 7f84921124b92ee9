"""TCP ports of the API: whether they are free, and kept for this daemon's servers while none of them listens.

gRPC's servers share a port (SO_REUSEPORT), so that one may follow another without a gap; the kernel would let another daemon
of the same user share it as well. So the keeper looks first without that option, which fails while anybody is bound, and then
holds the port by a socket that never listens: others who look find it taken, even while a server is being replaced.
"""

import errno
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from enum import Enum

from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, CannotRun
from mcastd.model.settings import Remote

PATIENCE = 5.0
"""Seconds that a port may be taken at the start: the server of a killed daemon needs up to 3 to end its calls."""

_RETRY = 0.1

_REMEDIES = {
    errno.EACCES: "the server's user may not have it: choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
    errno.EADDRNOTAVAIL: "no interface has this address: add it first, or listen on 0.0.0.0 or [::]",
}


class Look(Enum):
    """How it is seen to that nobody else has a port."""

    PATIENTLY = "patiently"
    """Whoever has it may be about to end."""
    ONCE = "once"
    NEVER = "never"
    """A server of this daemon may have it."""


class Ports:
    """The ports of one daemon; made by the user whose servers listen."""

    def __init__(self, remotes: Sequence[Remote], held: MutableMapping[str, int], look: Look) -> None:
        """Look whether they are free, and hold them; CannotRun if one can't be had.

        `held`: descriptors of an earlier image of this process, by address; those that are used are taken out.
        """
        self._held: dict[str, int] = {}
        new = [remote for remote in remotes if remote.address not in held]
        try:
            for remote in () if look is Look.NEVER else new:
                _wait_until_free(remote, PATIENCE if look is Look.PATIENTLY else 0.0)
            for remote in remotes:
                descriptor = held.pop(remote.address, None)
                self._held[remote.address] = _hold(remote) if descriptor is None else descriptor
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> dict[str, int]:
        """For the next image of this process, by address."""
        return dict(self._held)

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()


def _wait_until_free(remote: Remote, patience: float) -> None:
    give_up_at = time.monotonic() + patience
    while True:
        try:
            os.close(_bound(remote, socket.SO_REUSEADDR))
        except CannotRun as exc:
            if exc.exit_code != EX_UNAVAILABLE or time.monotonic() >= give_up_at:
                raise
        else:
            return
        time.sleep(_RETRY)


def _hold(remote: Remote) -> int:
    """A socket that only those can bind beside who share the port, too."""
    try:
        return _bound(remote, socket.SO_REUSEPORT)
    except CannotRun:
        # Connections in TIME_WAIT that another program has left are in the way. With this option too nobody else is kept out
        # until a server listens (inet_csk_bind_conflict, net/ipv4/inet_connection_sock.c).
        return _bound(remote, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def _bound(remote: Remote, *options: int) -> int:
    """A socket that is bound as gRPC's will be, which takes any address of IPv4 for any of both families."""
    host = "::" if remote.host == "0.0.0.0" and socket.has_dualstack_ipv6() else remote.host
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, remote.port))
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            text = f"{remote.address} is in use by another program: stop it (ss -ltnp), or choose another port"
            raise CannotRun(EX_UNAVAILABLE, text) from exc
        remedy = _REMEDIES.get(exc.errno or 0, "choose another address")
        raise CannotRun(EX_CONFIG, f"{remote.address} can't be had: {exc.strerror}; {remedy}") from exc
    return sock.detach()
