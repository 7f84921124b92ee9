"""The sockets of the API: gRPC's servers, bound before there is anything to serve, and put in their places when there is.

gRPC removes the path that a server was bound to when that server ends, whatever it leads to by then: its successor's socket too.
So each is bound under a name of its own, and renamed. That makes a hand-over without a gap: from the moment of the rename clients
that connect wait in the successor's queue, and are served as soon as it serves. TCP ports are shared by both meanwhile
(SO_REUSEPORT, which the kernel allows to the same user alone).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import grpc

from mcastd.api.certificates import Certificates
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Listen, Remote

RECEIVE_MAX = 4 * 1024 * 1024
"""Bytes of one request message; beyond it gRPC itself answers RESOURCE_EXHAUSTED."""

OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_MAX),
    # Half-open connections are found within 15 s, and clients may ping every 5 s (the defaults are 2 hours and 5 minutes).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # What gRPC 1.85 goes by; left alone it is 60 s, whatever the line before says.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)

_ALONE = (("grpc.so_reuseport", 0),)
"""Two servers on one address must be an error."""

CONNECTIONS_MAX = 2_000
"""Connections of one TCP address at once, those included that have yet to show a certificate; more are closed at once."""

_REMOTE = (
    # A successor binds the port while its predecessor serves; the keeper has made sure that nobody else does.
    ("grpc.so_reuseport", 1),
    # Anybody may connect: who shows no certificate, or says nothing in HTTP/2, within 10 s is dropped (the default is 120 s).
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    # Who has a certificate but no call under way is asked to go, and comes back with his next call.
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.max_concurrent_streams", 1_000),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
)
"""For TCP addresses alone: strangers can reach them."""

_log = logging.getLogger(__name__)


class ApiSockets:
    """One gRPC server for each address; needs the running loop."""

    def __init__(self, listens: Sequence[Listen], seat: int = 1, remotes: Sequence[Remote] = (), *, again: bool = False) -> None:
        """Read certificates, bind nothing yet; `seat` tells apart the servers that run at once. McastdError INVALID_VALUE.

        `again`: nobody serves any more, so that other addresses must not wait for certificates of one.
        """
        self._listens = listens
        self._seat = seat
        self._servers = [grpc.aio.server(options=(*OPTIONS, *_ALONE)) for _ in listens]
        self._certificates = {one: Certificates(one, patient=again) for one in remotes if one.cert}
        self._remotes = [(grpc.aio.server(options=(*OPTIONS, *_REMOTE)), one) for one in remotes]
        self._bound = False
        self._bound_remotes: set[Remote] = set()
        self._inodes: list[int] = []

    def __iter__(self) -> Iterator[tuple[grpc.aio.Server, Listen | Remote]]:
        """Each server with its address."""
        return chain(zip(self._servers, self._listens, strict=True), self._remotes)

    @property
    def certificates(self) -> list[Certificates]:
        """Of each listener with TLS."""
        return list(self._certificates.values())

    def bind(self) -> None:
        """Make the sockets, where nobody looks for them yet; nothing where they are made. McastdError NOT_ALLOWED."""
        if not self._bound:
            for server, listen in zip(self._servers, self._listens, strict=True):
                self._inodes.append(_bind(server, listen, listen.path_of(self._seat)))
            self.bind_remotes()
            self._bound = True

    def bound(self, remote: Remote) -> bool:
        """Whether a TCP address is bound; it is not while there are no certificates for it."""
        return remote in self._bound_remotes

    def bind_remotes(self) -> list[grpc.aio.Server]:
        """Bind TCP addresses that are not bound, and have good certificates by now; their servers. McastdError NOT_ALLOWED."""
        bound = []
        for server, remote in self._remotes:
            certificates = self._certificates.get(remote)
            if remote in self._bound_remotes or (certificates is not None and not certificates.usable):
                continue
            _bind_remote(server, remote, certificates)
            self._bound_remotes.add(remote)
            bound.append(server)
        return bound

    def publish(self) -> None:
        """Have the paths lead to these sockets, unless who served before has done it; binds them where they are not."""
        self.bind()
        _rename(self._listens, self._seat)

    def hand_over(self, seat: int) -> None:
        """Have the paths lead to the sockets of another server, which waits in this seat; calls under way stay ours."""
        _rename(self._listens, seat)

    def withdraw(self) -> None:
        """Remove the paths that lead to these sockets still."""
        for listen, inode in zip(self._listens, self._inodes, strict=False):
            with suppress(OSError):
                if Path(listen.path).lstat().st_ino == inode:
                    Path(listen.path).unlink()


def _rename(listens: Sequence[Listen], seat: int) -> None:
    for listen in listens:
        try:
            Path(listen.path_of(seat)).rename(listen.path)
        except FileNotFoundError:
            _log.debug("the socket is in its place already, or has none", extra={"path": listen.path})
        except OSError as exc:
            text = f"{listen.address} can't be put in its place: {exc.strerror}: may the server's user write in its directory?"
            raise McastdError(Reason.NOT_ALLOWED, text, address=listen.address) from exc


def _bind_remote(server: grpc.aio.Server, remote: Remote, certificates: Certificates | None) -> None:
    try:
        if certificates is None:
            server.add_insecure_port(remote.target)
        else:
            server.add_secure_port(remote.target, certificates.credentials())
    except RuntimeError as exc:
        text = f"{remote.address} can't be bound: {exc}; is the address one of this host's, and the port free?"
        raise McastdError(Reason.NOT_ALLOWED, text, address=remote.address) from exc


def _bind(server: grpc.aio.Server, listen: Listen, name: str) -> int:
    """Make the socket with its mode and group from the start, so that nobody can connect in between who may not; its inode."""
    before = os.umask(0o777)
    try:
        server.add_insecure_port(f"unix:{name}")
    except RuntimeError as exc:
        text = f"{listen.address} can't be bound: {exc}; does its directory exist, and may the server's user write there?"
        raise McastdError(Reason.NOT_ALLOWED, text, address=listen.address) from exc
    finally:
        os.umask(before)
    path = Path(name)
    if listen.gid is not None:
        os.chown(path, -1, listen.gid)
    path.chmod(listen.mode)
    return path.lstat().st_ino
