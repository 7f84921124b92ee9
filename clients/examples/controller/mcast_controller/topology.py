"""Owns the topology file: routers and how to reach them, links between their interfaces, and where hosts are attached.

Files are TOML, read whole and checked whole: a fault names the file, the place and the remedy.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,46}")
"""A router's name: with an interface's, of at most 15 bytes, it goes into a route's cookie of 64."""

_ADDRESS = re.compile(r"unix:.+|(?:[^:\[\]/]+|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>[0-9]{1,5})")

_OWNER = re.compile(r"[a-z0-9._-]{1,63}")
_COST_MAX = 1_000_000


class FileError(ValueError):
    """A file that cannot be used; the message says where, what and what would be right."""


class Port(NamedTuple):
    """An interface of a router, written `leaf1/eth0`."""

    router: str
    interface: str

    def __str__(self) -> str:
        return f"{self.router}/{self.interface}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the controller shows and trusts; paths."""

    ca: str
    cert: str
    key: str
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Router:
    """A router and where its API listens."""

    name: str
    address: str
    """`HOST:PORT` with TLS, or `unix:PATH`."""
    tls: TlsFiles | None


@dataclass(frozen=True, slots=True)
class Link:
    """A point-to-point link between two routers."""

    a: Port
    b: Port
    cost: int

    def peer(self, port: Port) -> Port:
        """The other end."""
        return self.b if port == self.a else self.a


@dataclass(frozen=True, slots=True)
class Topology:
    """What the file says."""

    owner: str
    """Whose the routes are, at each router."""
    routers: Mapping[str, Router]
    links: tuple[Link, ...]
    segments: Mapping[str, Port]
    """Where hosts are, by name: an interface that leads to no other router of the file."""
    edges: frozenset[Port]
    """The interfaces of all segments: sources are where these see them, and nowhere else."""
    link_of: Mapping[Port, Link]


def load(path: Path) -> Topology:
    """Read a topology file; FileError where it cannot be used."""
    document = read(path)
    known = {"owner", "tls", "router", "link", "segment"}
    if unknown := sorted(document.keys() - known):
        raise FileError(f"{path}: {unknown[0]}: no such key; there are {', '.join(sorted(known))}")
    owner = document.get("owner", "controller")
    if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
        raise FileError(f"{path}: owner: {owner!r} is none: 1 to 63 of a-z, 0-9, '.', '_' and '-'")
    common = _tls(path, "tls", table(path, document, "tls")) if "tls" in document else None
    routers = _routers(path, table(path, document, "router"), common)
    taken: dict[Port, str] = {}
    links = tuple(_link(path, n, value, routers, taken) for n, value in enumerate(tables(path, document, "link"), 1))
    segments = {
        name: _port(path, f"segment.{name}", value, "at", routers, taken)
        for name, value in table(path, document, "segment").items()
        if keys(path, f"segment.{name}", value, {"at"})
    }
    ends = {port: link for link in links for port in (link.a, link.b)}
    return Topology(owner, routers, links, segments, frozenset(segments.values()), ends)


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise FileError(f"{path}: {exc.strerror}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise FileError(f"{path}: {exc}") from exc


def table(path: Path, document: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table of the document; empty where there is none."""
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise FileError(f"{path}: {key}: must be a table, [{key}] or [{key}.NAME]")
    return value


def tables(path: Path, document: dict[str, Any], key: str) -> list[Any]:
    """Return an array of tables of the document; empty where there is none."""
    value = document.get(key, [])
    if not isinstance(value, list):
        raise FileError(f"{path}: {key}: must be an array of tables, [[{key}]]")
    return value


def keys(path: Path, place: str, value: Any, known: set[str]) -> bool:
    """Check that something is a table of known keys only."""
    if not isinstance(value, dict):
        raise FileError(f"{path}: {place}: must be a table with {', '.join(sorted(known))}")
    if unknown := sorted(value.keys() - known):
        raise FileError(f"{path}: {place}.{unknown[0]}: no such key; there are {', '.join(sorted(known))}")
    return True


def text(path: Path, place: str, value: dict[str, Any], key: str, default: str | None = None) -> str:
    """Return a text of a table; without a default it must be there."""
    found = value.get(key, default)
    if not isinstance(found, str) or (default is None and not found):
        raise FileError(f"{path}: {place}.{key}: must be a text" + ("" if key in value else ", and is not there"))
    return found


def _routers(path: Path, document: dict[str, Any], common: TlsFiles | None) -> dict[str, Router]:
    routers: dict[str, Router] = {}
    at: dict[str, str] = {}
    for name, value in document.items():
        router = routers[name] = _router(path, name, value, common)
        other = at.setdefault(router.address, name)
        if other != name:  # Its sessions would take each other's place for ever.
            raise FileError(f"{path}: router.{name}.address: {router.address} is router {other}'s already; each has its own")
    if not routers:
        raise FileError(f"{path}: there is no [router.NAME]: name at least one")
    return routers


def _router(path: Path, name: str, value: Any, common: TlsFiles | None) -> Router:
    place = f"router.{name}"
    if not _NAME.fullmatch(name):
        raise FileError(f"{path}: {place}: a router's name is 1 to 47 of letters, digits, '.', '_' and '-'")
    keys(path, place, value, {"address", "tls"})
    address = text(path, place, value, "address")
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"] or 1) < 65_536:
        raise FileError(f"{path}: {place}.address: {address!r} is none: write HOST:PORT, [IPV6]:PORT or unix:PATH")
    tls = _tls(path, f"{place}.tls", value["tls"]) if "tls" in value else common
    if address.startswith("unix:"):
        tls = None
    elif tls is None:
        raise FileError(f"{path}: {place}.address: {address} needs TLS: add [tls] with ca, cert and key, or use unix:PATH")
    return Router(name, address, tls)


def _tls(path: Path, place: str, value: Any) -> TlsFiles:
    keys(path, place, value, {"ca", "cert", "key", "server_name"})
    ca, cert, key = (str(path.parent / text(path, place, value, name)) for name in ("ca", "cert", "key"))
    return TlsFiles(ca, cert, key, text(path, place, value, "server_name", ""))


def _link(path: Path, number: int, value: Any, routers: Mapping[str, Router], taken: dict[Port, str]) -> Link:
    place = f"link {number}"
    keys(path, place, value, {"a", "b", "cost"})
    a, b = (_port(path, place, value, key, routers, taken) for key in ("a", "b"))
    if a.router == b.router:
        raise FileError(f"{path}: {place}: {a} and {b} are of one router; a link joins two")
    cost = value.get("cost", 1)
    if type(cost) is not int or not 1 <= cost <= _COST_MAX:
        raise FileError(f"{path}: {place}.cost: {cost!r} is not 1 to {_COST_MAX}")
    return Link(a, b, cost)


def _port(path: Path, place: str, value: Any, key: str, routers: Mapping[str, Router], taken: dict[Port, str]) -> Port:
    found = text(path, place, value, key)
    router, _, interface = found.partition("/")
    if router not in routers:
        raise FileError(f"{path}: {place}.{key}: {found!r} is of no router of this file; write ROUTER/INTERFACE")
    if not 1 <= len(interface.encode()) <= 15 or "/" in interface:
        raise FileError(f"{path}: {place}.{key}: {found!r} names no interface; write ROUTER/INTERFACE")
    port = Port(router, interface)
    if port in taken:
        raise FileError(f"{path}: {place}.{key}: {port} is at {taken[port]} already; an interface is at one link or segment")
    taken[port] = place
    return port
