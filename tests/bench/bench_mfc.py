"""How fast the kernel adapter programs and dumps the MFC, against a loop in C over the kernel's own structures in the same run.

    python -m tests.bench.bench_mfc [entries]

Ratios count, not times: the machine is what it is. Runs in a namespace of its own, as root or in a user namespace.
"""

import sys
import time
from collections.abc import Callable

from mcastd.kernel._native import ffi, lib
from mcastd.kernel.mfc_dump import dump
from mcastd.kernel.mroute import BATCH_MAX, Mroute
from mcastd.kernel.rawsock import open_mroute
from mcastd.model.address import Family, exact_key, pack_address
from tests.testbed import Testbed, become_able

ROUNDS = 3
GROUP = {Family.IPV4: pack_address("239.1.1.1"), Family.IPV6: pack_address("ff3e::1")}


def key(family: Family, number: int) -> bytes:
    """Key of an entry by number."""
    source = number.to_bytes(4, "big") if family is Family.IPV4 else b"\xfd" + number.to_bytes(15, "big")
    return exact_key(0, GROUP[family], source)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Bench:
    """One family's socket, with the same entries for both sides."""

    def __init__(self, bed: Testbed, family: Family, entries: int) -> None:
        self.family = family
        self.space = bed.namespace()
        with self.space.entered():
            self.sock = bed.close_with(open_mroute(family))
        self.mroute = Mroute(self.sock, family)
        ipv4 = family is Family.IPV4
        self.keys = [key(family, 0x0A000000 + n) for n in range(entries)]
        # Parent 0, VIF 1: neither exists, which the kernel accepts, and which costs it nothing.
        self.forwarding = bytes(2) + (b"\xff\x01" + b"\xff" * 30 if ipv4 else (2).to_bytes(4, sys.byteorder) + bytes(28))
        size = lib.MR_PREPARED4 if ipv4 else lib.MR_PREPARED6
        self.prepared = ffi.new("uint8_t[]", size * entries)
        prepare = lib.mr_prepare4 if ipv4 else lib.mr_prepare6
        prepare(entries, b"".join(self.keys), self.forwarding * entries, self.prepared)
        self.loop = lib.mr_floor4 if ipv4 else lib.mr_floor6

    def floor(self) -> None:
        """The loop in C."""
        number = self.loop(self.sock.fileno(), len(self.keys), self.prepared)
        assert number == 0, number

    def program(self) -> None:
        """The adapter, batch by batch."""
        for at in range(0, len(self.keys), BATCH_MAX):
            batch = self.keys[at : at + BATCH_MAX]
            assert self.mroute.program(batch, [self.forwarding] * len(batch)) is None

    def delete(self) -> None:
        """The adapter, batch by batch."""
        for at in range(0, len(self.keys), BATCH_MAX):
            assert self.mroute.delete(self.keys[at : at + BATCH_MAX]) is None

    def compare(self) -> None:
        """A dump, walked and compared as at a restart."""
        with self.space.entered():
            seen = dump(self.family, 0)
        wanted = dict.fromkeys(self.keys, 0)
        same = [number == 0 for number in range(len(seen.paths))]
        found = sum(1 for row in seen.rows() if wanted.get(row[7]) == 0 and same[row[4]])
        assert found == len(self.keys), found

    def dump(self) -> None:
        """A dump, every entry walked."""
        with self.space.entered():
            count = sum(1 for _ in dump(self.family, 0).rows())
        assert count == len(self.keys), count


def main() -> None:
    """Print a line for each operation and family; the best of some rounds."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    reason = become_able()
    if reason:
        sys.exit(reason)
    with Testbed() as bed:
        for family in Family:
            bench = Bench(bed, family, entries)
            best: dict[str, float] = {}
            for _ in range(ROUNDS):
                for name, call in (
                    ("C loop, new", bench.floor),
                    ("C loop, replace", bench.floor),
                    ("delete after C loop", bench.delete),
                    ("adapter, new", bench.program),
                    ("adapter, replace", bench.program),
                    ("dump", bench.dump),
                    ("dump and compare", bench.compare),
                    ("adapter, delete", bench.delete),
                ):
                    best[name] = min(best.get(name, 1e9), timed(call))
            for name in ("new", "replace"):
                ratio = best[f"C loop, {name}"] / best[f"adapter, {name}"]
                rate = entries / best[f"adapter, {name}"]
                floor = entries / best[f"C loop, {name}"]
                print(f"IPv{family} {name}: {rate:,.0f}/s, {ratio:.2f} of the C loop's {floor:,.0f}/s")  # noqa: T201
            for name in ("adapter, delete", "dump", "dump and compare"):
                print(f"IPv{family} {name}: {entries / best[name]:,.0f}/s")  # noqa: T201


if __name__ == "__main__":
    main()
