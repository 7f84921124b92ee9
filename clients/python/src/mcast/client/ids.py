"""Owns what identifies an object, and the short way to write a route.

Texts are compared as the daemon returns them: addresses in canonical form (RFC 5952), a host's prefix length left out.
"""

import socket
from typing import Any, NamedTuple

from mcast.v1 import types_pb2 as t


class RouteId(NamedTuple):
    """What identifies a route in a daemon; `iif` is empty for an exact (S,G), of which a table holds one."""

    table: int
    group: str
    source: str
    iif: str = ""

    def key(self) -> t.RouteKey:
        """Return it as the API takes it, for a delete."""
        return t.RouteKey(table=self.table, group=self.group, source=self.source, iif=self.iif)


class SourceId(NamedTuple):
    """What identifies a Source."""

    table: int
    group: str
    source: str
    interface: str


class JoinId(NamedTuple):
    """What identifies a join."""

    interface: str
    group: str
    source: str
    owner: str


_new = tuple.__new__


def route(group: str, source: str = "", iif: str = "", *oifs: str | t.Oif, **fields: Any) -> t.Route:
    """Write a route: `route("239.1.1.1", "10.0.0.5", "eth0", "eth1", "vlan*", cookie="a")`; `fields` are those of the message."""
    outgoing = [t.Oif(interface=oif) if isinstance(oif, str) else oif for oif in oifs]
    return t.Route(group=group, source=source, iif=iif, oifs=outgoing, **fields)


def route_id(of: t.Route | t.RouteKey) -> RouteId:
    """Return what identifies a route."""
    group, source = of.group, of.source
    if ":" in group or "/" in group:
        group = canonical(group)
    if ":" in source or "/" in source:
        source = canonical(source)
    iif = "" if source and "/" not in group and "/" not in source else of.iif
    return _new(RouteId, (of.table, group, source, iif))  # half the time of a call of the class


def route_id_of(group: str, source: str, iif: str = "", table: int = 0) -> RouteId:
    """Return what identifies a route, from its parts."""
    return route_id(t.RouteKey(group=group, source=source, iif=iif, table=table))


def source_id(of: t.Source) -> SourceId:
    """Return what identifies a Source."""
    return SourceId(of.table, of.group, of.source, of.interface)


def join_id(of: t.Join) -> JoinId:
    """Return what identifies a join."""
    return JoinId(of.interface, of.group, of.source, of.owner)


def is_template(of: RouteId) -> bool:
    """Whether the interface is a part of the identity: there may be several that differ in nothing else."""
    return not of.source or "/" in of.group or "/" in of.source


def canonical(text: str) -> str:
    """Return an address or prefix as the daemon writes it; what is none is left as it is, for the daemon to refuse."""
    address, _, length = text.partition("/")
    family, host = (socket.AF_INET6, "128") if ":" in address else (socket.AF_INET, "32")
    try:
        address = socket.inet_ntop(family, socket.inet_pton(family, address))
    except (OSError, ValueError):
        return text
    return address if length in {"", host} else f"{address}/{length}"
