"""Owns how a daemon is reached: its address, TLS files and their changes, keepalive and back-off. No connection is made here."""

import ipaddress
import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from mcast.client.errors import ConfigurationError

DEFAULT_ADDRESS = "unix:/run/mcastd/mcastd.sock"

_LOCAL = ("unix:", "unix-abstract:")

_MESSAGE_MAX = 64 << 20
"""Bytes of one answer: a status with thousands of owners, say. Lists come in chunks below 4 MiB."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: random, from 0 to a bound that doubles with each ("full jitter"), so that many clients spread."""

    first: float = 0.1
    """Seconds: the bound of the first pause."""
    longest: float = 10.0
    """Seconds: no bound is above it."""

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise ConfigurationError(f"Backoff({self.first}, {self.longest}) can't be used: choose 0 < first <= longest")

    def pauses(self) -> Iterator[float]:
        """Yield seconds to wait, for ever."""
        bound = self.first
        while True:
            yield random.uniform(0, bound)  # noqa: S311 - spreads clients over time, guards nothing
            bound = min(bound * 2, self.longest)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How a daemon that is gone without a word is noticed: a ping after `time` seconds, an answer within `timeout`."""

    time: float = 10.0
    """Seconds; the daemon allows a ping every 5 s."""
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not (self.time >= 5 and self.timeout > 0):
            raise ConfigurationError(f"Keepalive({self.time}, {self.timeout}) can't be used: the daemon allows a ping every 5 s")

    def options(self) -> list[tuple[str, int]]:
        """Return the channel options. gRPC 1.85 goes by ping_timeout_ms (60 s if left alone), others by keepalive_timeout_ms."""
        timeout = int(self.timeout * 1000)
        return [
            ("grpc.keepalive_time_ms", int(self.time * 1000)),
            ("grpc.keepalive_timeout_ms", timeout),
            ("grpc.http2.ping_timeout_ms", timeout),
            ("grpc.http2.max_pings_without_data", 0),
        ]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS connection, PEM; they are read again when they change."""

    ca: str | Path
    """Certificates of the CAs that the daemon's is signed by."""
    cert: str | Path = ""
    """The client's certificate, with its chain."""
    key: str | Path = ""
    """Its key, not encrypted."""
    server_name: str = ""
    """A name that the daemon's certificate has; empty = the address's."""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ConfigurationError("Tls: give cert and key, or neither")

    def stamp(self) -> object:
        """Return what differs when a file has changed; None for one that is not there."""
        return tuple(_stamp(Path(path)) for path in (self.ca, self.cert, self.key) if path)

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Read CA, key and certificate as gRPC takes them; ConfigurationError where they are of no use or do not fit."""
        self._check()
        return _bytes(self.ca), _bytes(self.key) if self.key else None, _bytes(self.cert) if self.cert else None

    def _check(self) -> None:
        # gRPC itself takes anything, and fails later at each handshake, in words that name no file.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Bundles have comments in all languages between the certificates; ssl takes ASCII alone.
        authorities = _bytes(self.ca).decode("ascii", "ignore")
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigurationError(f"{self.ca} has no certificates that can be used: {exc}") from exc
        if not self.cert:
            return
        _bytes(self.cert), _bytes(self.key)  # These say which file is missing.
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, OSError) as exc:
            raise ConfigurationError(f"{self.cert} with {self.key} can't be used: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Target:
    """Where a daemon is and how it is spoken to."""

    address: str = DEFAULT_ADDRESS
    """unix:PATH, HOST:PORT or [IPV6]:PORT."""
    tls: Tls | None = None
    keepalive: Keepalive = Keepalive()

    def __post_init__(self) -> None:
        if self.address.startswith("/"):
            object.__setattr__(self, "address", f"unix:{self.address}")
        local = self.address.startswith(_LOCAL)
        if local and self.address.endswith(":"):
            raise ConfigurationError(f"{self.address!r} names no socket: write {DEFAULT_ADDRESS}")
        host, _, port = self.address.rpartition(":")
        if not local and not (host and port.isdecimal() and 0 < int(port) < 65536 and (":" not in host or host.endswith("]"))):
            raise ConfigurationError(f"{self.address!r} is no address: write unix:PATH, HOST:PORT or [IPV6]:PORT")
        if local and self.tls is not None:
            raise ConfigurationError(f"{self.address} is a socket of this host, which takes no TLS: leave out tls")
        if not local and self.tls is None and not _is_loopback(host):
            raise ConfigurationError(f"{self.address} is another host: give tls=Tls(ca, cert, key)")

    def options(self, *, watching: bool) -> list[tuple[str, int | str]]:
        """Return the options of a channel; `watching` = one whose streams should hold little back."""
        options: list[tuple[str, int | str]] = [
            *self.keepalive.options(),
            ("grpc.max_receive_message_length", _MESSAGE_MAX),
            # Channels to one address share a connection, and the pause after a failed attempt, otherwise.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if watching:
            options.append(("grpc.http2.bdp_probe", 0))  # gRPC's own buffers would hide megabytes of lag
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the TLS files; None = there is no TLS."""
        return None if self.tls is None else grpc.ssl_channel_credentials(*self.tls.read())

    def stamp(self) -> object:
        """Return what differs when a TLS file has changed."""
        return None if self.tls is None else self.tls.stamp()


def _is_loopback(host: str) -> bool:
    """Whether a host is this one: a name that only begins like an address of loopback is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror}") from exc


def _no_password() -> str:
    raise OSError("the key is encrypted: give one that is not, readable for this user alone")
