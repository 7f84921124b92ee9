"""The kernel's notifications for tests in memory: what a router's kernel tells of changes of entries, and who hears it."""

from collections import deque
from collections.abc import Generator, Iterator

from mcastd.core.drift import Drift, DumpRow, Found
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from mcastd.model.event import KernelPaths
from tests.fakekernel import FakeKernel, Where
from tests.fakerouter import Router

OURS, FOREIGN = 17, 4


class Ear:
    """Notifications of a router's kernel, with the socket's filter: our own additions and changes are not told."""

    def __init__(self, router: Router) -> None:
        """Listen from now on."""
        self.router = router
        self.drift = Drift(router.engine)
        self.queue: deque[tuple[bytes, KernelPaths | None]] = deque()
        kernel = router.kernel
        add, delete = kernel.add_mfc, kernel.del_mfc

        def add_mfc(key: bytes, packed: bytes, *, static: bool = False) -> int:
            number = add(key, packed, static=static)
            entry = kernel.entry(key)
            if not number and entry is not None and entry.static:
                self.queue.append((key, paths(kernel, key)))
            return number

        def del_mfc(key: bytes) -> int:
            number = delete(key)
            if not number:
                self.queue.append((key, None))
            return number

        kernel.add_mfc, kernel.del_mfc = add_mfc, del_mfc  # type: ignore[method-assign]

    def hear(self, count: int = 1_000_000) -> None:
        """Tell of the oldest changes."""
        while self.queue and count:
            key, does = self.queue.popleft()
            if does is None:
                self.drift.hear_removals([key])
            else:
                self.drift.hear([(key, does)])
            count -= 1

    def absent(self, kernel: KernelTable, keys: list[bytes]) -> list[bytes]:
        """SIOCGETSGCNT."""
        entries = self.router.kernel.tables[kernel.table, kernel.family].entries
        return [key for key in keys if key not in entries]

    def settle(self) -> tuple[list[bytes], list[bytes]]:
        """Hear all and look at it; what was missing, and what was different."""
        self.hear()
        return collect(self.drift.settle(self.absent))

    def dump(self, where: Where) -> tuple[list[DumpRow], list[KernelPaths]]:
        """RTM_GETROUTE."""
        kernel = self.router.kernel
        rows: list[DumpRow] = []
        found: list[KernelPaths] = []
        for key, entry in kernel.tables[where].entries.items():
            rows.append((0, 0, 0, 0.0, len(found), FOREIGN if entry.static else OURS, 0, key))
            found.append(paths(kernel, key))
        return rows, found

    def compare(self, where: Where = (0, Family.IPV4)) -> Generator[Found, None, None]:
        """Dump a table and compare, in slices; `dump_begins` and `dump_ends` are the caller's."""
        rows, found = self.dump(where)
        return self.drift.compare(self.router.engine.tables[where], rows, found, FOREIGN, self.absent)

    def compare_all(self) -> tuple[list[bytes], list[bytes]]:
        """Dump and compare every open table."""
        missing, different = [], []
        for where, kernel in self.router.engine.tables.items():
            if kernel.opened:
                self.drift.dump_begins(kernel)
                found = collect(self.compare(where))
                self.drift.dump_ends(kernel)
                missing += found[0]
                different += found[1]
        return missing, different


def collect(findings: Iterator[Found]) -> tuple[list[bytes], list[bytes]]:
    """What was missing, and what was different."""
    missing, different = [], []
    for found in findings:
        missing += found.missing
        different += found.different
    return missing, different


def paths(kernel: FakeKernel, key: bytes) -> KernelPaths:
    """What a notification says of an entry that is there."""
    found = kernel.paths(key)
    assert found is not None
    return found[0], tuple(sorted(found[1].items()))
