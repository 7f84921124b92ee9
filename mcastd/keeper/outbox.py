"""What waits for the server: upcall records in a bounded ring, and messages that keep their place among them.

Records outlive a server; messages are for one server alone. Nothing here blocks: what a channel does not take now, waits.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from mcastd.keeper.channel import (
    RECORD_SIZE,
    RECORDS_MAX,
    Losses,
    Message,
    UpcallRecord,
    close_all,
    encode,
    losses_values,
    pack_record,
)
from mcastd.model.address import Family

RING_SIZE = 65_536
"""Records kept while no server takes them: 6 MB when full."""

FLUSH_MAX = 64
"""Messages sent in a row before the kernel's sockets have their turn."""

Send = Callable[[bytes, Sequence[int]], bool]
"""Channel.send: False when the other end is behind."""


class _Waiting(NamedTuple):
    after: int
    """Records that must have left the ring first, counted since the start."""
    data: bytes
    fds: tuple[int, ...]


class Outbox:
    """The order in which things are told to the server; owns the descriptors that wait in it."""

    def __init__(self, ring_size: int = RING_SIZE) -> None:
        """Start empty."""
        self._records: deque[bytes] = deque()
        self._ring_size = ring_size
        self._added = 0
        self._waiting: deque[_Waiting] = deque()
        self._borrowed: Iterator[tuple[bytes, int]] = iter(())
        self._next_borrowed: tuple[bytes, int] | None = None
        self._before_borrowed = 0
        """Messages that go before the borrowed ones."""
        self._losses: dict[tuple[int, Family], tuple[int, int]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._records or self._waiting or self._losses or self._next_borrowed)

    @property
    def waiting(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    @property
    def quiet(self) -> bool:
        """Whether no message waits; records and losses may."""
        return not self._waiting and self._next_borrowed is None

    def hand_over(self) -> tuple[bytes, list[list[int]]]:
        """Records and losses that wait, for the next image of this process."""
        losses = [[table, family, *counts] for (table, family), counts in self._losses.items()]
        return b"".join(self._records), losses

    def take_over(self, records: bytes, losses: Iterable[Sequence[int]]) -> None:
        """Undo `hand_over`."""
        for at in range(0, len(records), RECORD_SIZE):
            self._records.append(records[at : at + RECORD_SIZE])
        self._added += len(records) // RECORD_SIZE
        for table, family, kernel, keeper in losses:
            self.add_losses(Losses(table, Family(family), kernel, keeper))

    def add_record(self, record: UpcallRecord) -> None:
        """Keep a record; if the ring is full the oldest goes, since its packet has waited longest for an entry."""
        if len(self._records) >= self._ring_size:
            oldest = self._records.popleft()
            self.add_losses(Losses(int.from_bytes(oldest[:4], "big"), Family(oldest[4]), kernel=0, keeper=1))
        self._records.append(pack_record(record))
        self._added += 1

    def add_losses(self, losses: Losses) -> None:
        """Count upcalls that nobody will hear of."""
        key = (losses.table, losses.family)
        kernel, keeper = self._losses.get(key, (0, 0))
        self._losses[key] = (kernel + losses.kernel, keeper + losses.keeper)

    def add_message(self, data: bytes, fds: Sequence[int] = (), *, first: bool = False) -> None:
        """Send a message after every record that is in the ring by now, or `first`; the descriptors are duplicated."""
        self._waiting.append(_Waiting(0 if first else self._added, data, tuple(os.dup(fd) for fd in fds)))

    def add_borrowed(self, messages: Iterator[tuple[bytes, int]]) -> None:
        """Send messages with a descriptor each after those `first` ones that wait now, and before all that comes later.

        Each is made when its turn comes, a few at a time, and its descriptor stays its owner's: they may be thousands.
        """
        self._borrowed = messages
        self._next_borrowed = next(messages, None)
        self._before_borrowed = len(self._waiting)

    def flush(self, send: Send) -> bool:
        """Send as much as the channel takes, or FLUSH_MAX messages; whether that was all."""
        for _ in range(FLUSH_MAX):
            if not self:
                return True
            gone = self._added - len(self._records)
            if self._next_borrowed is not None and not self._before_borrowed:
                sent = self._send_borrowed(send, *self._next_borrowed)
            elif self._waiting and self._waiting[0].after <= gone:
                sent = self._send_message(send)
            elif self._losses:
                sent = self._send_losses(send)
            else:
                sent = self._send_records(send, self._waiting[0].after - gone if self._waiting else RECORDS_MAX)
            if not sent:
                return False
        return not self

    def clear_messages(self) -> None:
        """Forget what was meant for a server that is gone; records stay for the next one."""
        while self._waiting:
            close_all(self._waiting.popleft().fds)
        self._borrowed, self._next_borrowed = iter(()), None

    def _send_message(self, send: Send) -> bool:
        first = self._waiting[0]
        if not send(first.data, first.fds):
            return False
        close_all(self._waiting.popleft().fds)
        self._before_borrowed -= self._before_borrowed > 0
        return True

    def _send_borrowed(self, send: Send, data: bytes, fd: int) -> bool:
        if not send(data, (fd,)):
            return False
        self._next_borrowed = next(self._borrowed, None)
        return True

    def _send_losses(self, send: Send) -> bool:
        (table, family), (kernel, keeper) = next(iter(self._losses.items()))
        if not send(encode(Message.LOSSES, body=losses_values(Losses(table, family, kernel, keeper))), ()):
            return False
        del self._losses[table, family]
        return True

    def _send_records(self, send: Send, most: int) -> bool:
        count = min(len(self._records), most, RECORDS_MAX)
        if not send(encode(Message.UPCALLS, body=b"".join(islice(self._records, count))), ()):
            return False
        for _ in range(count):
            self._records.popleft()
        return True
