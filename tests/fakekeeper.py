"""A keeper in memory: it outlives servers, holds tables open, and answers upcalls by the real fast path."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from mcastd.keeper.channel import NO_TEMPLATE
from mcastd.keeper.fastpath import FastPath
from mcastd.model.address import Family, key_family, key_table, split_key
from mcastd.model.errors import Problem, Reason
from mcastd.model.event import AdoptedVif, Answer, UpcallKind
from mcastd.model.template import TemplateAction
from tests.fakekernel import FakeKernel, Where


class Record(NamedTuple):
    """What a server hears of an upcall."""

    key: bytes
    kind: UpcallKind
    vif: int
    answer: Answer
    template: bytes
    time: float


class KernelFastPath(FastPath):
    """The real one; its three calls of the kernel go to the one in memory."""

    def __init__(self, kernel: FakeKernel, where: Where, pause: Callable[[], None]) -> None:
        super().__init__(-1, *where)
        self._pause = pause
        self._kernel = kernel
        self._program = self._add
        self._counters = self._look
        self._delete = self._remove

    def actions(self) -> dict[bytes, TemplateAction]:
        """What it does, by the packed key of the template."""
        return {key.pack(): held.action for key, held in self._held.items()}

    def learned(self) -> dict[bytes, int]:
        """Learned entries that it counts, by the packed key of the template."""
        return {key.pack(): held.learned for key, held in self._held.items()}

    def _add(self, _fd: int, _count: int, key: bytes, packed: bytes, errnos: list[int]) -> int:
        self._pause()
        errnos[0] = self._kernel.add_mfc(key, packed)
        return int(errnos[0] != 0)

    def _look(self, _fd: int, _count: int, key: bytes, _values: object, _errnos: object) -> int:
        return int(self._kernel.entry(key) is None)

    def _remove(self, _fd: int, _count: int, key: bytes, errnos: list[int]) -> int:
        errnos[0] = self._kernel.del_mfc(key)
        return int(errnos[0] != 0)


class FakeKeeper:
    """The process that outlives servers: it holds tables open, the VIF maps, the templates, and records for the server."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.maps: dict[Where, tuple[tuple[int, int, str], ...]] = {}
        self.fastpaths: dict[Where, KernelFastPath] = {}
        self.records: deque[Record] = deque()
        """In order, not heard yet."""
        self.busy: dict[Where, Problem] = {}
        """Tables that cannot be opened, and why."""
        self.pause: Callable[[], None] = lambda: None
        """Called between its look at the kernel and its entry."""

    def open(self, table: int) -> Mapping[Family, Problem | None]:
        """Open the sockets of a table that are not open yet."""
        out: dict[Family, Problem | None] = {}
        for family in Family:
            where = table, family
            out[family] = self.busy.get(where)
            if out[family] is None and where not in self.maps:
                if self.kernel.init(where):
                    out[family] = Problem(Reason.MROUTE_SOCKET_BUSY, f"table {table} is in use")
                else:
                    self.maps[where] = ()
                    self.fastpaths[where] = KernelFastPath(self.kernel, where, self._paused)
        return out

    def close(self, table: int) -> None:
        """Close the sockets of a table; the server has closed its own."""
        for family in Family:
            if self.maps.pop((table, family), None) is not None:
                del self.fastpaths[table, family], self.kernel.tables[table, family]

    def _paused(self) -> None:
        self.pause()

    def set_map(self, where: Where, entries: Iterable[tuple[int, int, str]]) -> None:
        """Keep a table's VIF map."""
        self.maps[where] = tuple(entries)

    def adopted(self, where: Where) -> list[AdoptedVif]:
        """The map as a new server gets it, with what the kernel (SIOCGETVIFCNT) says of each number."""
        vifs = self.kernel.tables[where].vifs
        return [AdoptedVif(number, ifindex, name, vifs[number] is not None) for number, ifindex, name in self.maps[where]]

    def packet(self, key: bytes, ifindex: int, ttl: int = 64) -> list[int]:
        """Let a packet of an (S,G) in; where it leaves. An upcall is answered at once, and recorded."""
        arrival = self.kernel.arrive(key, ifindex, ttl)
        if arrival.upcall is not None:
            answer, template = Answer.NONE, NO_TEMPLATE
            if arrival.upcall is UpcallKind.NOCACHE:
                _, group, source = split_key(key)
                answer, template = self.fastpaths[key_table(key), key_family(key)].answer(group, source, arrival.vif)
            self.records.append(Record(key, arrival.upcall, arrival.vif, answer, template, self.kernel.clock))
        return arrival.oifs
