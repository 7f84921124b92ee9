"""Taking over what an earlier keeper has left: each descriptor checked, and what the log says of it put in force.

What can't be used is closed, and removed from the service manager's store. Nothing here needs to be alone with the sockets: the
server of a killed keeper may have copies for some seconds more, without a channel by which it could change a VIF.
"""

import contextlib
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial

from mcastd.keeper import controls
from mcastd.keeper.channel import VifEntries
from mcastd.keeper.fdstore import FdStore, Named
from mcastd.keeper.held import HeldRequest
from mcastd.keeper.memory import STATE_NAME, Memory, Parts, Replayed, replay
from mcastd.keeper.statelog import StateLog, UnreadableState
from mcastd.kernel import privileges, rawsock
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.interface import VIFS_MAX
from mcastd.model.settings import TABLE_MAX

_MROUTE = re.compile(r"mroute([46])-(0|[1-9][0-9]{0,8})")
_JOIN = re.compile(r"join-[0-9]{1,10}")
_PROC_VIFS = {Family.IPV4: "/proc/net/ip_mr_vif", Family.IPV6: "/proc/net/ip6_mr_vif"}
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h

_log = logging.getLogger(__name__)


class _Useless(Exception):  # noqa: N818 - the name says what it is
    """Why a descriptor can't be used."""


class _Found:
    """Descriptors by what their names say they are."""

    def __init__(self, named: Iterable[Named]) -> None:
        self.mroute: dict[tuple[int, Family], Named] = {}
        self.joins: dict[str, Named] = {}
        self.controls: dict[tuple[str, Family, int], Named] = {}
        self.state: Named | None = None
        self.strange: list[Named] = []
        for one in named:
            self._sort(one)

    def _sort(self, one: Named) -> None:
        mroute, control = _MROUTE.fullmatch(one.name), controls.read_name(one.name)
        if mroute and int(mroute[2]) <= TABLE_MAX and (int(mroute[2]), Family(int(mroute[1]))) not in self.mroute:
            self.mroute[int(mroute[2]), Family(int(mroute[1]))] = one
        elif _JOIN.fullmatch(one.name) and one.name not in self.joins:
            self.joins[one.name] = one
        elif control is not None and control not in self.controls:
            self.controls[control] = one
        elif one.name == STATE_NAME and self.state is None:
            self.state = one
        else:
            self.strange.append(one)


def adopt(named: Iterable[Named], memory: Memory, stored: Iterable[str] | None = None, removals: Iterable[str] = ()) -> None:
    """Take over all that can be used, and begin to record.

    `stored`: what the service manager has of it; None = all. `removals`: names of what it has beside, and shall let go of first.
    """
    began, found, store, parts = time.monotonic(), _Found(named), memory.store, memory.parts
    known = [one.name for one in (*found.mroute.values(), *found.joins.values(), *found.controls.values())]
    store.found(stored if stored is not None else [*known, *([STATE_NAME] if found.state is not None else [])])
    for name in removals:
        store.give_up(name)
    for one in found.strange:
        _log.warning("a stored descriptor is not known here: it is closed", extra={"descriptor": one.name})
        os.close(one.fd)
        if one.name not in store.stored:
            store.give_up(one.name)
    for (table, family), one in found.mroute.items():
        _take(one, store, partial(_use_mroute, parts, table, family))
    log, replayed = _replay(found.state, memory, parts)
    _know_vifs(parts, store)
    for name, one in found.joins.items():
        _take(one, store, partial(_use_join, parts, HeldRequest(name, replayed.notes.get(name, ""))))
    for (kind, family, number), one in found.controls.items():
        _take(one, store, partial(_use_control, parts, kind, family, number))
    if replayed.run is not None:
        memory.run = replayed.run
    memory.begin(log)
    sockets = parts.tables.sockets()
    if known or log is not None:
        _log.info(
            "what the last keeper has left is taken over",
            extra={
                "sockets": len(sockets),
                "joins": len(parts.held),
                "templates": sum(len(one.fastpath) for one in sockets),
                "seconds": round(time.monotonic() - began, 4),
            },
        )


def _take(one: Named, store: FdStore, use: Callable[[int], object]) -> None:
    """Use a descriptor, or close it and have the store forget it."""
    try:
        use(one.fd)
    except (_Useless, McastdError, ValueError) as exc:
        _log.error("a stored descriptor can't be used: it is closed", extra={"descriptor": one.name, "error": str(exc)})
        with contextlib.suppress(OSError):
            os.close(one.fd)
        store.remove(one.name)


def _use_mroute(parts: Parts, table: int, family: Family, fd: int) -> None:
    parts.tables.adopt(table, family, _mroute(fd, family))


def _use_join(parts: Parts, request: HeldRequest, fd: int) -> None:
    parts.held.store(request, (_own(fd),))


def _use_control(parts: Parts, kind: str, family: Family, number: int, fd: int) -> None:
    parts.controls.adopt(kind, family, number, _raw(fd, family))


def _replay(state: Named | None, memory: Memory, parts: Parts) -> tuple[StateLog | None, Replayed]:
    nothing = Replayed({}, None)
    if state is None:
        return None, nothing
    log = None
    try:
        log = StateLog.adopt(state.fd)
        return log, replay(log, parts)
    except UnreadableState as exc:
        _log.error(
            "the stored state of the last keeper can't be used: tables are taken over as far as the kernel tells of them",
            extra={"error": str(exc)},
        )
    os.close(state.fd)
    for one in parts.tables.sockets():
        one.reset()
    parts.rules.forget()
    memory.store.remove(STATE_NAME)
    return None, nothing


def _know_vifs(parts: Parts, store: FdStore) -> None:
    """See to it that no table has a VIF of which the map knows nothing: its number would be given to another interface."""
    for one in parts.tables.sockets():
        known = {vif for vif, _, _ in one.vif_map}
        strange = [vif for vif in range(VIFS_MAX) if vif not in known and one.has_vif(vif)]
        if not strange:
            continue
        told = _kernel_map(one.family) if one.table == 0 else ()
        if set(strange) <= {vif for vif, _, _ in told}:
            one.vif_map = (*one.vif_map, *(entry for entry in told if entry[0] in strange))
            continue
        _log.error(
            "a table has VIFs of which nothing is known: it is closed, and its routes are programmed anew",
            extra={"table": one.table, "family": one.family.name, "vifs": strange},
        )
        parts.tables.forget(one.table, one.family)
        store.remove(f"mroute{one.family.value}-{one.table}")


def _kernel_map(family: Family) -> VifEntries:
    """The VIFs of the default table that are on interfaces, as the kernel lists them."""
    entries = []
    with open(_PROC_VIFS[family], encoding="utf-8", errors="surrogateescape") as lines:
        for fields in map(str.split, list(lines)[1:]):
            with contextlib.suppress(OSError, ValueError, IndexError):  # an interface that has just gone
                name = os.fsencode(fields[1]).decode("utf-8", "backslashreplace")
                entries.append((int(fields[0]), socket.if_nametoindex(fields[1]), name))
    return tuple(entries)


def _mroute(fd: int, family: Family) -> socket.socket:
    """The multicast routing socket of some table; _Useless if it is none, or not of this network namespace."""
    sock = _raw(fd, family)
    if not _owns_table(sock, family):
        sock.detach()
        raise _Useless("it is the socket of no routing table")
    return sock


def _raw(fd: int, family: Family) -> socket.socket:
    sock = rawsock.adopt(fd)
    if rawsock.family_of_socket(sock) is not family:
        sock.detach()
        raise _Useless(f"it is not of {family.name}")
    try:
        _own(fd)
    except _Useless:
        sock.detach()
        raise
    return sock


def _own(fd: int) -> int:
    """The descriptor, if its socket is of this network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
        if _cookie(fd) != _cookie(here.fileno()):
            raise _Useless("it is of another network namespace")
    return fd


def _cookie(fd: int) -> int:
    """Number of a socket's network namespace; 0 where the kernel does not tell (before 5.14)."""
    sock = socket.socket(fileno=os.dup(fd))
    with sock:
        try:
            return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
        except OSError:
            return 0


def _owns_table(sock: socket.socket, family: Family) -> bool:
    """Whether the socket has its table: to set an option of it another one would need CAP_NET_ADMIN (ip_mroute_setsockopt)."""
    now = privileges.current()
    privileges.set_capabilities(now.permitted, now.effective & ~privileges.CAP_NET_ADMIN, now.inheritable)
    try:
        rawsock.assert_mroute(sock, family)
    except OSError:
        return False
    finally:
        privileges.set_capabilities(now.permitted, now.effective, now.inheritable)
    return True
