"""A flood of spoofed sources: memory stays bounded, flows that are there lose nothing, and genuine new sources get in.

MCASTD_TEST_FULL=1 sends a million sources in a minute against the default caps; without it a part of that, against lower ones.
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.model.address import Family
from mcastd.model.limits import LEARNED_MAX
from tests.e2e import templates
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import Router, group
from tests.e2e.templates import EVERY_GROUP, Spray, metric, prefix, template
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300), pytest.mark.xdist_group("flood")]

FULL = os.environ.get("MCASTD_TEST_FULL") == "1"
SOURCES = 1_000_000 if FULL else 20_000
RATE = 1_000_000 / 60
CAP = LEARNED_MAX if FULL else 2000
WAITING = 24_000
"""Entries that may wait in the kernel: twice the keeper's WAITING_MAX, and what it has yet to read (its buffer limits that).
Without that there would be ten seconds' worth of sources, 160,000, and the kernel would be at a standstill."""

LEAVING = 3500
"""Entries that count no more, but are still being deleted."""

KEEPER_GROWTH = 8 << 10
SERVER_GROWTH = 54 << 10
"""KiB of resident memory; a server that has just started has 57 MiB."""

_log = logging.getLogger(__name__)


@pytest.fixture
def capped(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router with metrics, and low caps unless all of it is asked for."""
    with open_directory() as directory:
        (directory / "config.toml").write_text(f"[daemon]\nlearned_max = {CAP}\nstops_max = {CAP}\n")
        arguments = ("--config", str(directory / "config.toml"), *templates.METRICS)
        with Router(testbed, family, directory=directory, arguments=arguments) as router:
            yield router


def resident(pid: int) -> int:
    """KiB of memory that a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Watch:
    """Looks at what must stay bounded while a flood goes on."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.pids = router.daemon.process.pid, router.daemon.server_pid()
        self.before = [resident(pid) for pid in self.pids]
        self.entries = self.waiting = self.others = 0
        self.growth = [0, 0]

    def look(self) -> None:
        """Look once, and check."""
        began = time.monotonic()
        rows = list(self.router.dump().rows())
        took = time.monotonic() - began
        passed = round(RATE * took)  # What goes and comes while it is taken is all in it.
        waiting = sum(row[6] for row in rows)
        self.waiting, self.entries = max(self.waiting, waiting), max(self.entries, len(rows) - waiting)
        grown = [resident(pid) - before for pid, before in zip(self.pids, self.before, strict=True)]
        self.growth = [max(one, other) for one, other in zip(self.growth, grown, strict=True)]
        assert len(rows) - waiting <= CAP + self.others + LEAVING + passed, f"in a dump that took {took:.2f} s"
        assert self.waiting <= WAITING
        assert self.growth[0] < KEEPER_GROWTH
        assert self.growth[1] < SERVER_GROWTH

    def check_newcomer(self) -> None:
        """A new source is forwarded by the template of groups 0x100 to 0x1FF (as long as that has room itself)."""
        if self.others > CAP // 2:
            return
        self.others += 1
        self.router.check_leaves(newcomer(self.router, 0x100 + self.others % 256, 1 + self.others), "down2", count=1)


def newcomer(router: Router, number: int, host: int) -> Sender:
    """A source that nobody has seen yet."""
    source = f"10.99.{host >> 8}.{host & 255}" if router.family is Family.IPV4 else f"fd99::{host:x}"
    return router.star.source.sender(group(router.family, number), source=source)


def test_flood_through_a_template(capped: Router) -> None:
    """The cap of the flooded template is no other's; and under it those who go on sending get in at last."""
    router, family = capped, capped.family
    templates.put(router, template(group(family, 1), "up", "down1"), template(prefix(family, 0x100, 8), "", "down2"))
    old = router.sender(1)
    templates.check_learned(router, old, "down1")
    flow = old.start(1000)
    spray = Spray(router.star.source, family, group(family, 1))
    watch = Watch(router)
    spray.spray(0, 1_000_000, rounds=1 if FULL else 0, rate=RATE)
    wait_until(lambda: metric(router, "mcastd_learned_refused_total") > CAP, 60)
    genuine = newcomer(router, 1, 1)
    genuine.start(20)
    until = time.monotonic() + 60
    while router.departures.count(genuine) < 40 or (FULL and spray.spraying):
        watch.look()
        watch.check_newcomer()
        assert router.departures.count(genuine) or time.monotonic() < until, "a genuine source never gets in"
    router.put(router.route(0x300, "down1"))
    router.check_leaves(router.sender(0x300), "down1")
    sent = spray.finish() if FULL else spray.stop()
    flow.stop()
    router.departures.wait(old)
    refused, lost = metric(router, "mcastd_learned_refused_total"), metric(router, "mcastd_upcall_queue_drops_total")
    _log.info(
        "%s: %d spoofed sources, %d refused, %d upcalls lost; at most %d entries and %d waiting; keeper +%d KiB, server +%d KiB; "
        "the old flow lost 0 of %d; others got in at once %d times, under the cap after %d packets",
        *(family.name, sent, refused, lost, watch.entries, watch.waiting, *watch.growth),
        *(old.sent, watch.others, waited(router, genuine)),
    )


def waited(router: Router, sender: Sender) -> int:
    """How many packets of a flow were lost before its first one left."""
    missing = router.departures.missing(sender)
    return next((at for at, number in enumerate(missing) if number != at), len(missing))


def test_flood_that_nobody_wants(capped: Router) -> None:
    """Stop filters are capped as well; what is wanted goes on, and a new route unblocks what was stopped."""
    router, family = capped, capped.family
    templates.put(router, template(prefix(family, 0x100, 8), "up", "down2"))
    old = router.sender(0x100)
    templates.check_learned(router, old, "down2")
    flow = old.start(1000)
    spray = Spray(router.star.source, family, group(family, 1))
    watch = Watch(router)
    spray.spray(0, SOURCES, rate=RATE)
    while spray.spraying:
        watch.look()
        watch.check_newcomer()
    assert spray.finish() == SOURCES
    flow.stop()
    router.departures.wait(old)
    assert metric(router, "mcastd_stops_refused_total") > 0
    templates.put(router, template(EVERY_GROUP[family], "", "down1"))
    sender = newcomer(router, 1, 1)
    sender.start(20)
    assert router.departures.wait_until(lambda: router.departures.count(sender) > 0, 30)
    assert all(oifs for _, oifs in router.kernel().values())
    _log.info(
        "%s: %d unwanted sources, %d stop filters refused; at most %d entries and %d waiting; keeper +%d KiB, server +%d KiB",
        *(family.name, SOURCES, metric(router, "mcastd_stops_refused_total"), watch.entries, watch.waiting, *watch.growth),
    )
