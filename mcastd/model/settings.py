"""Settings of one run of the daemon: names resolved, values checked, handed by the keeper to each server it starts.

Where they come from (flags, environment, file) is mcastd.cli's business; this is the value alone and its JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from typing import Any

from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import Limits

DEFAULT_SOCKET = "/run/mcastd/mcastd.sock"
DEFAULT_STATE_DIR = "/var/lib/mcastd"

LOG_LEVELS = ("debug", "info", "warning", "error")

AUDIT_LOGGER = "mcastd.audit"
"""Name of the logger that tells who has written, or was refused."""

AUDITS = ("all", "refusals", "off")
"""What it tells."""

TABLE_MAX = 999_999_999
"""Highest number MRT_TABLE takes: the kernel makes an interface name of it (ip_mroute_setsockopt, net/ipv4/ipmr.c)."""

DEFAULT_TABLE_NUMBERS = frozenset({253, 254})
"""Numbers of the default table in IPv4 and IPv6; it is always called 0 here."""

TABLES_MAX = 256
"""Tables open at once beside the default one; each costs two descriptors, in keeper and server."""

SEATS_MAX = 9
"""Servers at once: one serves, the others are prepared to."""

SOCKET_PATH_MAX = 107 - 5
"""Bytes of sun_path (linux/un.h) without the final NUL, and without what Listen.path_of adds."""

LISTEN_OPTIONS = ("mode", "group", "access", "owner", "cert", "key", "ca", "plain")
"""What may be said of a listening address, on the command line and in the file."""


class Access(IntEnum):
    """What a caller may do; numbers of mcast.cli.v1.Access."""

    VIEW = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Listen:
    """One address where the API is offered: a Unix socket, its permissions, and who its callers are."""

    path: str
    mode: int = 0o600
    """Permission bits of the socket."""
    gid: int | None = None
    """Group of the socket; None = the server's own."""
    access: Access = Access.ADMIN
    owner: str = "local"
    """Owner of what callers of this socket write."""

    @property
    def address(self) -> str:
        """As gRPC and the command line write it."""
        return f"unix:{self.path}"

    def path_of(self, seat: int) -> str:
        """The socket's name until the server with this number (1 to SEATS_MAX) serves."""
        return f"{self.path}.new{seat}"


@dataclass(frozen=True, slots=True)
class Remote:
    """One TCP address where the API is offered: with TLS and client certificates; or plain, on loopback."""

    host: str
    port: int
    cert: str = ""
    """Path of the certificate with its chain, PEM; empty = plain."""
    key: str = ""
    ca: str = ""
    """Path of the certificates of those who may have signed clients' ones."""
    access: Access = Access.ADMIN
    """Of callers of a plain one; who comes with a certificate is a principal of the configuration."""
    owner: str = "local"
    """The same for the owner of what they write."""

    @property
    def target(self) -> str:
        """Host and port as gRPC wants them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """As the command line writes it."""
        return f"tcp:{self.target}"


@dataclass(frozen=True, slots=True)
class Exposition:
    """What the metrics listener offers, and to whom."""

    web_config: str = ""
    """Path of the web configuration file (TLS, users); empty = everybody is let in, unencrypted."""
    flows_top: int = 100
    """Flows by rate on /metrics, beside those that are expected."""
    flows_all: bool = False
    """Whether /metrics/flows is on."""
    silent_after: float = 10.0
    """Seconds without a packet after which a flow that is expected is silent."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is decided before the daemon does anything."""

    listens: tuple[Listen, ...]
    state_dir: str
    user: str
    """Name of the server's user, for messages."""
    uid: int
    gid: int
    """What the server runs as; the keeper's own ids where it can't or need not change them."""
    change_user: bool
    """Whether the server must change to uid and gid itself, after its imports."""
    remotes: tuple[Remote, ...] = ()
    """TCP addresses of the API."""
    metrics: str = ""
    """HOST:PORT of each metrics listener, separated by spaces; empty = none."""
    exposition: Exposition = field(default_factory=Exposition)
    log_level: str = "info"
    audit: str = "all"
    """One of AUDITS."""
    limits: Limits = field(default_factory=Limits)
    tables: tuple[int, ...] = ()
    """Tables opened at start beside the default one."""
    config: str = ""
    """Path of the configuration file; empty = none."""
    action: str = ""
    """Path of the action script, for the keeper alone; empty = none."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Checksums of the file's settings that wait for a restart, by name (sources/daemon.py): a reload says which have changed."""

    def socket_gids(self) -> tuple[int, ...]:
        """Groups the server must belong to, so that it may give its sockets to them."""
        return tuple(sorted({listen.gid for listen in self.listens if listen.gid is not None}))

    def to_json(self) -> dict[str, object]:
        """Plain values, for the channel."""
        values = asdict(self)
        values["limits"]["other_tables"] = sorted(self.limits.other_tables)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> "Settings":
        """Undo to_json; McastdError INVALID_VALUE if the values are not what it makes."""
        try:
            plain: dict[str, Any] = {one.name: values[one.name] for one in fields(cls)}
            plain["listens"] = tuple(Listen(**{**one, "access": Access(one["access"])}) for one in plain["listens"])
            plain["remotes"] = tuple(Remote(**{**one, "access": Access(one["access"])}) for one in plain["remotes"])
            plain["tables"] = tuple(map(int, plain["tables"]))
            plain["exposition"] = Exposition(**plain["exposition"])
            plain["limits"] = Limits(**{**plain["limits"], "other_tables": frozenset(plain["limits"]["other_tables"])})
            return cls(**plain)
        except (KeyError, TypeError, ValueError) as exc:
            raise McastdError(Reason.INVALID_VALUE, f"the keeper's settings can't be read: {exc!r}") from exc


def metrics_host_port(metrics: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT" or "[IPV6]:PORT"; ValueError if it is neither."""
    host, colon, port = metrics.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed) or not port.isascii() or not port.isdigit() or int(port) > 65535:
        msg = f"{metrics!r} is not HOST:PORT"
        raise ValueError(msg)
    return (host[1:-1] if bracketed else host), int(port)
