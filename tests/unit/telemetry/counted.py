"""What a kernel in memory has counted, as samples; and a scraper on top of it."""

import struct
from dataclasses import dataclass

from mcastd.kernel.mfc_dump import PROTOCOL_FOREIGN, PROTOCOL_OURS, MfcDump, MfcPaths
from mcastd.model.address import Family, key_family, key_table
from mcastd.model.errors import KernelRefused
from mcastd.model.interface import VifCounters
from mcastd.runtime.samples import Sample, TableCounters
from mcastd.telemetry.exposition import Format
from mcastd.telemetry.flows import Flows
from mcastd.telemetry.metrics import Metrics
from mcastd.telemetry.scrape import Facts, Scraper
from mcastd.telemetry.silence import SilenceWatch
from tests.fakerouter import Router


@dataclass
class Count:
    """Of one entry."""

    packets: int = 0
    octets: int = 0
    wrong_if: int = 0
    idle: float = 1.0
    ifindex: int = 1
    unresolved: bool = False
    foreign: bool = False


class Counted:
    """Entries with their counters, of which samples are taken; a sampler for scrapes."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.counts: dict[bytes, Count] = {}
        self.now = 1000.0
        self.last: Sample | None = None
        self.refuses = self.unwritable = False
        self.taken = 0

    def take(self, seconds: float = 10.0) -> Sample:
        """A sample of what is counted now, so long after the last."""
        self.now += seconds
        tables = []
        for table, family in self.router.engine.tables:
            counts = {key: one for key, one in self.counts.items() if (key_table(key), key_family(key)) == (table, family)}
            tables.append(TableCounters(table, dump_of(family, counts), self.now))
        sample = Sample(tables, self.now, self.now)
        self.last = sample if self.last is None else sample.after(self.last)
        self.taken += 1
        return self.last

    async def sample(self, max_age: float) -> Sample:
        """The last one, if any; else a new one."""
        if self.refuses:
            raise KernelRefused("RTM_GETROUTE", 12, "no memory")
        return self.last if self.last is not None and max_age else self.take()

    def vif_counters(self, _table: int, _ipv6: bool, vif: int) -> VifCounters | None:
        """Of any VIF."""
        return VifCounters(vif, 2, 30 + vif, 4)

    def store_refuses(self) -> bool:
        """Not unless the test says so."""
        return self.unwritable

    def watchers(self) -> tuple[int, int, dict[str, int]]:
        """Some."""
        return 3, 17, {"unknown": 2, "too_old": 1, "slow_consumer": 0}


def dump_of(family: Family, counts: dict[bytes, Count]) -> MfcDump:
    """The dump that a kernel would give."""
    record = struct.Struct(f"=QQQdIBB{12 if family is Family.IPV4 else 36}s")
    iifs = sorted({one.ifindex for one in counts.values()})
    records = b"".join(
        record.pack(
            one.packets,
            one.octets,
            one.wrong_if,
            -1.0 if one.unresolved else one.idle,
            iifs.index(one.ifindex),
            PROTOCOL_FOREIGN if one.foreign else PROTOCOL_OURS,
            one.unresolved,
            key,
        )
        for key, one in counts.items()
    )
    return MfcDump(family, records, [MfcPaths(iif, ()) for iif in iifs], interrupted=False)


class Scraped:
    """A scraper on a router in memory."""

    def __init__(self, *links: str, top: int = 100) -> None:
        self.router = Router(*links)
        self.counted = Counted(self.router)
        self.metrics = Metrics()
        self.silence = SilenceWatch(10.0)
        self.flows = Flows(self.router.engine, self.silence, top)
        facts = Facts("an-instance", 900.0, 2, "/etc/mcastd/mcastd.toml")
        self.scraper = Scraper(self.router.engine, self.counted, self.counted, self.metrics.registry, self.flows, facts)

    async def text(self, form: Format = Format.TEXT, *names: str) -> str:
        """What /metrics says."""
        return b"".join([part async for part in self.scraper.metrics(form, names)]).decode()

    async def every(self, form: Format = Format.TEXT, *names: str, shard: tuple[int, int] = (0, 1)) -> str:
        """What /metrics/flows says."""
        return b"".join([part async for part in self.scraper.every_flow(form, names, shard)]).decode()
