"""The kernel's sockets by table and family, and the VIF map of each; draining upcalls into the outbox."""

import logging
import selectors
import socket
import time

from mcastd.keeper.channel import NO_TEMPLATE, Losses, UpcallRecord, VifEntries
from mcastd.keeper.fastpath import FastPath
from mcastd.keeper.outbox import Outbox
from mcastd.kernel import rawsock, upcall
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLES_MAX

READ_LIMIT = 256
"""Upcalls taken from one socket before the others have their turn."""

DRAIN_LIMIT = 65_536
"""More than the receive buffer can hold, so whoever has read this many has read all that was queued when it began."""

_NO_ANSWER = (Answer.NONE, NO_TEMPLATE)

_log = logging.getLogger(__name__)


class MrouteSocket:
    """One multicast routing socket; closing its last copy makes the kernel forget the table."""

    def __init__(self, sock: socket.socket, table: int, family: Family) -> None:
        """Own the initialised socket."""
        self.sock = sock
        self.table = table
        self.family = family
        self.vif_map: VifEntries = ()
        self.fastpath = FastPath(sock.fileno(), table, family)
        self._lost = 0
        self._where = {"table": table, "family": family.name}

    def read(self, outbox: Outbox) -> int:
        """Move some queued upcalls to the outbox; how many packets were read, 0 = the socket is empty."""
        try:
            received = upcall.receive(self.sock, READ_LIMIT)
        except OSError as exc:  # an error of the socket is reported once, then it works on
            _log.warning("reading upcalls failed", extra={**self._where, "error": exc.strerror})
            return 1
        # All of them are answered before anything is told to the server: each waits for its entry.
        answers = [
            self.fastpath.answer(one.group, one.source, one.vif) if one.kind is UpcallKind.NOCACHE else _NO_ANSWER
            for one in received.upcalls
        ]
        now = time.time()
        for one, (answer, template) in zip(received.upcalls, answers, strict=True):
            outbox.add_record(
                UpcallRecord(self.table, self.family, one.kind, one.vif, one.group, one.source, now, answer, template)
            )
        self._count_losses(received.lost, outbox)
        if received.garbage:
            _log.warning("the kernel sent what is no upcall", extra={**self._where, "packets": received.garbage})
        return len(received.upcalls) + received.garbage

    def _count_losses(self, total: int, outbox: Outbox) -> None:
        """Pass on what is new in the kernel's running total, which wraps at 2**32 and is 0 where nothing was said."""
        new = (total - self._lost) % 2**32
        if total and 0 < new < 2**31:
            self._lost = total
            _log.warning("the kernel dropped upcalls: the buffer was full", extra={**self._where, "lost": new})
            outbox.add_losses(Losses(self.table, self.family, kernel=new, keeper=0))


class Tables:
    """All sockets that are open, registered with the keeper's selector."""

    def __init__(self, selector: selectors.BaseSelector, outbox: Outbox) -> None:
        """Start with none; what they report goes to the outbox."""
        self._selector = selector
        self._outbox = outbox
        self._sockets: dict[tuple[int, Family], MrouteSocket] = {}
        self._families: tuple[Family, ...] = tuple(Family)

    def sockets(self) -> list[MrouteSocket]:
        """All of them, in the order of their opening."""
        return list(self._sockets.values())

    def get(self, table: int, family: Family) -> MrouteSocket | None:
        """One of them."""
        return self._sockets.get((table, family))

    def drain(self, one: MrouteSocket) -> None:
        """Move everything to the outbox that is queued in a socket now."""
        taken = 0
        while taken < DRAIN_LIMIT and (count := one.read(self._outbox)):
            taken += count

    def open_default(self) -> None:
        """Open table 0 in both families; a kernel without IPv6 multicast routing leaves IPv4 alone, with a warning.

        McastdError MROUTE_SOCKET_BUSY or NOT_ALLOWED as rawsock.open_mroute.
        """
        self._open_one(0, Family.IPV4)
        try:
            self._open_one(0, Family.IPV6)
        except McastdError as exc:
            if exc.reason in {Reason.MROUTE_SOCKET_BUSY, Reason.NOT_ALLOWED}:
                self.close(0)
                raise
            _log.warning("there is no IPv6 multicast routing here: IPv4 alone is served", extra={"error": str(exc)})
            self._families = (Family.IPV4,)

    def open(self, table: int) -> list[MrouteSocket]:
        """The sockets of a table, opened where they are not yet; all or none."""
        if table in DEFAULT_TABLE_NUMBERS:
            raise McastdError(Reason.INVALID_VALUE, f"table {table} is the default table, which is called 0", table=table)
        if (table, Family.IPV4) not in self._sockets:
            if len(self._sockets) >= (TABLES_MAX + 1) * len(self._families):
                raise McastdError(
                    Reason.TOO_MANY_ITEMS,
                    f"table {table} can't be opened: {TABLES_MAX} others are, which is the limit",
                    limit=TABLES_MAX,
                )
            try:
                for family in self._families:
                    self._open_one(table, family)
            except McastdError:
                self.close(table)
                raise
        return [one for one in self._sockets.values() if one.table == table]

    def close(self, table: int) -> None:
        """Close the sockets of a table and forget its VIF maps."""
        for family in Family:
            one = self._sockets.pop((table, family), None)
            if one is not None:
                self._selector.unregister(one.sock)
                one.sock.close()

    def close_all(self) -> None:
        """Close every socket: the kernel's tables are empty then, unless a server still holds copies."""
        for table in {one.table for one in self._sockets.values()}:
            self.close(table)

    def _open_one(self, table: int, family: Family) -> None:
        one = MrouteSocket(rawsock.open_mroute(family, table), table, family)
        self._sockets[table, family] = one
        self._selector.register(one.sock, selectors.EVENT_READ, lambda: one.read(self._outbox))
