"""The kernel's sockets by table and family, and the VIF map of each; draining upcalls into the outbox."""

import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from mcastd.keeper.channel import (
    NO_TEMPLATE,
    ChannelError,
    Losses,
    Message,
    UpcallRecord,
    VifEntries,
    parse_body,
    take_family,
    take_int,
    take_vif_entries,
)
from mcastd.keeper.fastpath import FastPath
from mcastd.keeper.fdstore import NoShelf, Shelf
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.templates import read_learned, read_templates
from mcastd.kernel import rawsock, upcall
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.limits import ROUTES_MAX
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLE_MAX, TABLES_MAX
from mcastd.model.template import TemplateChange

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
        self.lost = 0
        """Of the kernel's running total of lost upcalls, what servers have been told."""
        self._where = {"table": table, "family": family.name}

    def reset(self) -> None:
        """Know of no VIF and no template."""
        self.vif_map, self.fastpath = (), FastPath(self.sock.fileno(), self.table, self.family)

    def has_vif(self, vif: int) -> bool:
        """Whether the kernel has a VIF of this number in the table."""
        return rawsock.has_vif(self.sock, self.family, vif)

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
        new = (total - self.lost) % 2**32
        if total and 0 < new < 2**31:
            self.lost = total
            _log.warning("the kernel dropped upcalls: the buffer was full", extra={**self._where, "lost": new})
            outbox.add_losses(Losses(self.table, self.family, kernel=new, keeper=0))


class Tables:
    """All sockets that are open, registered with the keeper's selector."""

    def __init__(self, selector: selectors.BaseSelector, outbox: Outbox, templates_max: int = 2 * ROUTES_MAX) -> None:
        """Start with none; what they report goes to the outbox. `templates_max`: of all, those that are coming included."""
        self._selector = selector
        self._templates_max = templates_max
        self._outbox = outbox
        self._sockets: dict[tuple[int, Family], MrouteSocket] = {}
        self._families: tuple[Family, ...] = tuple(Family)
        self._shelf: Shelf = NoShelf()
        self.on_learned: Callable[[int, Family, dict[bytes, int]], None] = lambda _table, _family, _made: None
        """Called with the learned entries that were made, by the names of their templates."""

    def put_on(self, shelf: Shelf) -> None:
        """Have copies of all sockets, and of those to come, outlive the process."""
        self._shelf = shelf
        for one in self._sockets.values():
            shelf.add(socket_name(one.table, one.family), one.sock.fileno())

    def adopt(self, table: int, family: Family, sock: socket.socket) -> None:
        """Take over the socket of a table that is not open yet; what it has lost so far is told already, or nobody knows."""
        one = MrouteSocket(sock, table, family)
        one.lost = rawsock.dropped(sock)
        self._add(one)

    def lost_before(self, losses: Iterable[Sequence[int]]) -> None:
        """What was told of the kernel's totals (`MrouteSocket.lost`) by the image before: table, family, total."""
        for table, family, lost in losses:
            one = self.get(table, Family(family))
            if one is not None:
                one.lost = lost

    def forget(self, table: int, family: Family) -> None:
        """Close one socket of a table."""
        one = self._sockets.pop((table, family), None)
        if one is not None:
            self._selector.unregister(one.sock)
            self._shelf.remove(socket_name(table, family))
            one.sock.close()

    def replay(self, message: Message, body: bytes) -> None:
        """Know what a server has said to a keeper before this one; of tables that are not open any more, nothing.

        ChannelError if it is not something a server may say.
        """
        match message:
            case Message.TEMPLATES:
                read = read_templates(body)
                one = self.get(read.table, read.family)
                if one is not None:
                    one.fastpath.take(read.flags, read.templates)
            case Message.LEARNED:
                table, family, counts = read_learned(body)
                one = self.get(table, family)
                if one is not None:
                    one.fastpath.correct(counts)
            case Message.VIF_MAP:
                values = parse_body(body)
                one = self.get(take_int(values, "table", 0, TABLE_MAX), take_family(values))
                if one is not None:
                    one.vif_map = take_vif_entries(values)
            case Message.CLOSE_TABLE:
                table = take_int(parse_body(body), "table", 0, TABLE_MAX)
                for one in [one for one in self._sockets.values() if one.table == table]:
                    one.reset()
            case _:
                raise ChannelError(f"{message.name} is nothing of a table")

    def sockets(self) -> list[MrouteSocket]:
        """All of them, in the order of their opening."""
        return list(self._sockets.values())

    def get(self, table: int, family: Family) -> MrouteSocket | None:
        """One of them."""
        return self._sockets.get((table, family))

    def templates(self) -> int:
        """How many templates there are, in force or coming."""
        return sum(len(one.fastpath) + one.fastpath.staging for one in self._sockets.values())

    def take(self, one: MrouteSocket, flags: int, templates: list[TemplateChange]) -> None:
        """Take changes of templates, or a part of a whole set; McastdError TOO_MANY_ITEMS: more than there can be routes."""
        if self.templates() + sum(change.action is not None for change in templates) > self._templates_max:
            text = f"there are {self._templates_max} templates, in force or coming, which is the limit"
            raise McastdError(Reason.TOO_MANY_ITEMS, text, limit=self._templates_max)
        one.fastpath.take(flags, templates)

    def drain(self, one: MrouteSocket) -> None:
        """Move everything to the outbox that is queued in a socket now."""
        taken = 0
        while taken < DRAIN_LIMIT and (count := self._read(one)):
            taken += count

    def open_default(self) -> None:
        """Open table 0 in both families; a kernel without IPv6 multicast routing leaves IPv4 alone, with a warning.

        McastdError MROUTE_SOCKET_BUSY or NOT_ALLOWED as rawsock.open_mroute.
        """
        before = set(self._sockets)
        self._open_one(0, Family.IPV4)
        try:
            self._open_one(0, Family.IPV6)
        except McastdError as exc:
            if exc.reason in {Reason.MROUTE_SOCKET_BUSY, Reason.NOT_ALLOWED}:
                self._undo(before)
                raise
            _log.warning("there is no IPv6 multicast routing here: IPv4 alone is served", extra={"error": str(exc)})
            self._families = (Family.IPV4,)

    def open(self, table: int) -> list[MrouteSocket]:
        """The sockets of a table, opened where they are not yet; all or none."""
        if table in DEFAULT_TABLE_NUMBERS:
            raise McastdError(Reason.INVALID_VALUE, f"table {table} is the default table, which is called 0", table=table)
        if any((table, family) not in self._sockets for family in self._families):
            if len(self._sockets) >= (TABLES_MAX + 1) * len(self._families):
                raise McastdError(
                    Reason.TOO_MANY_ITEMS,
                    f"table {table} can't be opened: {TABLES_MAX} others are, which is the limit",
                    limit=TABLES_MAX,
                )
            before = set(self._sockets)
            try:
                for family in self._families:
                    self._open_one(table, family)
            except McastdError:
                self._undo(before)
                raise
        return [one for one in self._sockets.values() if one.table == table]

    def close(self, table: int) -> None:
        """Close the sockets of a table and forget its VIF maps."""
        for family in Family:
            self.forget(table, family)

    def close_all(self) -> None:
        """Close every socket: the kernel's tables are empty then, unless a server still holds copies."""
        for table in {one.table for one in self._sockets.values()}:
            self.close(table)

    def _undo(self, before: set[tuple[int, Family]]) -> None:
        """Close what was opened since."""
        for key in self._sockets.keys() - before:
            self.forget(*key)

    def _open_one(self, table: int, family: Family) -> None:
        if (table, family) not in self._sockets:
            self._add(MrouteSocket(rawsock.open_mroute(family, table), table, family))

    def _add(self, one: MrouteSocket) -> None:
        self._sockets[one.table, one.family] = one
        self._selector.register(one.sock, selectors.EVENT_READ, lambda: self._read(one))
        self._shelf.add(socket_name(one.table, one.family), one.sock.fileno())

    def _read(self, one: MrouteSocket) -> int:
        count = one.read(self._outbox)
        if one.fastpath.made:
            made, one.fastpath.made = one.fastpath.made, {}
            self.on_learned(one.table, one.family, made)
        return count


def socket_name(table: int, family: Family) -> str:
    """Name under which a table's socket is kept."""
    return f"mroute{family.value}-{table}"
