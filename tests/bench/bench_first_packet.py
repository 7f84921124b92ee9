"""How long the first packet of a new flow takes through a template, packet sent to packet out, beside SMCRoute in the same run.

    python -m tests.bench.bench_first_packet [samples [4|6]]

mcastd with 1 and with 10,000 templates, idle and while 100,000 routes are rewritten over gRPC without a pause; SMCRoute
(Debian package smcroute; left out where it is not installed) with 1 and with 10,000 rules, idle and while rules are added in
batches; and packets of flows that the kernel knows already. The time is from before the sender's system call to the kernel's own
stamp of the packet at the receiver's end of the last link, so what a busy machine does to the measuring process does not count;
it runs in real time where that is allowed. Ratios count, not times. Exits 1 where a median is above SMCRoute's, or the p99 under
load above twice the idle one.
"""

import contextlib
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.bench.bench_bulk import Client
from tests.e2e.router import bulk, group
from tests.e2e.templates import prefix, template
from tests.testbed import Star, Testbed, become_able
from tests.testbed.daemon import McastdProcess, wait_until

SAMPLES = 3000
MANY = 10_000
ROUTES = 100_000
PAUSE = 0.001
"""Seconds between two samples."""

PORT = 5000
PRIORITY = 30
MEASURED = 0x40000
"""Groups from this number on are measured, 2^18 of them."""

_CONFIG = "[daemon]\nlearned_max = 1000000\nidle_timeout = 3600\n"
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_ETH_P = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_MAGIC = b"first packet"
_LOST_SECONDS = 1.0


class Figures(NamedTuple):
    """Of one case, in microseconds."""

    name: str
    median: float
    p99: float
    worst: float
    lost: int
    samples: int

    def __str__(self) -> str:
        lost = f", {self.lost} lost" if self.lost else ""
        return f"{self.name:<58} median {self.median:7.1f}  p99 {self.p99:8.1f}  max {self.worst:9.1f} µs  ({self.samples}{lost})"


class Probe:
    """Sends first packets and stamps them."""

    def __init__(self, bed: Testbed, star: Star, family: Family, samples: int) -> None:
        self._family, self._samples = family, samples
        self._number = MEASURED
        ipv4 = family is Family.IPV4
        source = star.source
        self._out = bed.close_with(source.namespace.socket(socket.AF_INET if ipv4 else socket.AF_INET6, socket.SOCK_DGRAM))
        if ipv4:
            self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", source.ifindex))
            self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
        else:
            self._out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, source.ifindex)
            self._out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 16)
        with star.receivers[0].namespace.entered():
            self._in = bed.close_with(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
            self._in.bind((star.receivers[0].name, _ETH_P[family]))
        self._in.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._in.settimeout(_LOST_SECONDS)
        self._where = (group(family, MEASURED), PORT)

    def first(self, name: str) -> Figures:
        """Each sample a group that nobody has sent to."""

        def another() -> None:
            self._number += 1
            self._where = (group(self._family, self._number), PORT)

        return self._run(name, another)

    def known(self, name: str) -> Figures:
        """The last group again and again."""
        return self._run(name, lambda: None)

    def _run(self, name: str, before: Callable[[], None]) -> Figures:
        times, lost = [], 0
        for _ in range(self._samples):
            before()
            time.sleep(PAUSE)
            took = self._one()
            if took is None:
                lost += 1
            else:
                times.append(took)
        cuts = statistics.quantiles(times, n=100)
        return Figures(name, statistics.median(times), cuts[98], max(times), lost, self._samples)

    def _one(self) -> float | None:
        """Microseconds of one packet; None = it never came."""
        sent = time.time_ns()
        mark = _MAGIC + struct.pack("=Q", sent)
        self._out.sendto(mark, self._where)
        with contextlib.suppress(TimeoutError):
            while True:
                data, ancillary, _, _ = self._in.recvmsg(256, 64)
                if data.endswith(mark):
                    seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
                    return float(seconds * 10**9 + nanoseconds - sent) / 1000
        return None


# --- mcastd ----------------------------------------------------------------------------------------------------------


def many_templates(family: Family) -> list[t.Route]:
    """Exact (*,G) templates of other groups."""
    return [template(group(family, 0x100 + n), "up", "down1") for n in range(MANY - 1)]


@contextlib.contextmanager
def rewriting(daemon: McastdProcess, family: Family) -> Iterator[None]:
    """100,000 routes are rewritten without a pause by another process."""
    command = [sys.executable, "-m", "tests.bench.bench_first_packet", "--rewrite", str(daemon.socket), str(family.value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ordinary) as process:  # noqa: PLW1509 - no threads
        try:
            assert process.stdout is not None
            process.stdout.readline()  # The first set is in.
            yield
            if process.poll() is not None:
                raise RuntimeError("the rewriting process has ended")
        finally:
            process.terminate()
            rewritten = process.communicate()[0].count("set")
            print(f"    ({ROUTES} routes rewritten {rewritten} times meanwhile)")  # noqa: T201


def rewrite(path: str, family: Family) -> None:
    """Be that process."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    source = "10.0.1.1" if family is Family.IPV4 else "fd00:0:0:1::1"

    class Daemon:
        channel = grpc.insecure_channel(f"unix:{path}")

    client = Client(Daemon, family)  # type: ignore[arg-type] # it has what is used
    sets = [client.encode(list(bulk(family, ROUTES, source, *oifs, first=0x10000))) for oifs in (("down1",), ("down2",))]
    while True:
        for one in sets:
            client.replace(one)
            os.write(1, b"set\n")


def measure_mcastd(samples: int, family: Family) -> dict[str, Figures]:
    """All cases of mcastd."""
    found = {}
    for count in (1, MANY):
        with Testbed() as bed, tempfile.TemporaryDirectory() as directory:
            Path(directory, "config.toml").write_text(_CONFIG)
            Path(directory).chmod(0o755)
            star = bed.star(2)
            arguments = ("--config", f"{directory}/config.toml")
            with McastdProcess(star.router, Path(directory), *arguments) as daemon:
                wide = template(prefix(family, MEASURED, 18), "up", "down1")
                daemon.put(wide, *(many_templates(family) if count > 1 else ()))
                probe = Probe(bed, star, family, samples)
                found[f"{count} idle"] = show(probe.first(f"mcastd, {count} template(s), idle"))
                if count == 1:
                    found["known"] = show(probe.known("the kernel alone: flows that it knows"))
                with rewriting(daemon, family):
                    found[f"{count} load"] = show(probe.first(f"mcastd, {count} template(s), {ROUTES} routes rewritten"))
    return found


# --- SMCRoute --------------------------------------------------------------------------------------------------------


class Smcroute:
    """smcrouted in a namespace."""

    def __init__(self, star: Star, directory: Path, rules: list[str]) -> None:
        self._star = star
        self.socket = directory / "smcroute.sock"
        config = directory / "smcroute.conf"
        config.write_text("".join(f"phyint {name} enable\n" for name in ("up", "down1", "down2")) + "\n".join(rules) + "\n")
        command = ["smcrouted", "-n", "-N", "-f", str(config), "-u", str(self.socket), "-P", str(directory / "pid"), "-l", "none"]
        self.process = star.router.popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self.socket.exists, 120)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)

    @contextlib.contextmanager
    def adding(self, family: Family) -> Iterator[None]:
        """Rules are added in batches without a pause by another process."""
        directory = self.socket.parent
        groups = [group(family, 0x10000 + n) for n in range(1000)]
        source = self._star.source.address(family)
        (directory / "batch").write_text("".join(f"add up {source} {one} down2\n" for one in groups))
        script = f"while smcroutectl -b -u {self.socket} <{directory}/batch >/dev/null 2>&1; do :; done"
        with self._star.router.entered():
            process = subprocess.Popen(["sh", "-c", script], process_group=0, preexec_fn=ordinary)  # noqa: PLW1509 - no threads
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure_smcroute(samples: int, family: Family) -> dict[str, Figures]:
    """All cases of SMCRoute."""
    found = {}
    for count in (1, MANY):
        with Testbed() as bed, tempfile.TemporaryDirectory() as directory:
            star = bed.star(2)
            rules = [f"mroute from up group {one.group} to down1" for one in (many_templates(family) if count > 1 else ())]
            rules.append(f"mroute from up group {prefix(family, MEASURED, 18)} to down1")
            daemon = Smcroute(star, Path(directory), rules)
            try:
                probe = Probe(bed, star, family, samples)
                wait_until(lambda probe=probe: probe._one() is not None, 120)  # type: ignore[misc] # it reads its rules
                found[f"{count} idle"] = show(probe.first(f"SMCRoute, {count} rule(s), idle"))
                if count == 1:
                    with daemon.adding(family):
                        found[f"{count} load"] = show(probe.first(f"SMCRoute, {count} rule(s), others added in batches"))
            finally:
                daemon.close()
    return found


# --- all of it -------------------------------------------------------------------------------------------------------


def ordinary() -> None:
    """Give up real time in a child."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def real_time() -> str:
    """Run before everything else; children do not. Says what came of it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as exc:
        return f"without real time ({exc.strerror}): the machine's load counts"
    return "in real time (SCHED_FIFO)"


def show(figures: Figures) -> Figures:
    """Print a line as soon as it is known."""
    print(figures, flush=True)  # noqa: T201
    return figures


def main() -> int:
    """Measure, and judge."""
    if sys.argv[1:2] == ["--rewrite"]:
        rewrite(sys.argv[2], Family(int(sys.argv[3])))
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    family = Family(int(sys.argv[2])) if len(sys.argv) > 2 else Family.IPV4
    if reason := become_able():
        print(reason)  # noqa: T201
        return 2
    print(f"{family.name}, {samples} samples each, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {real_time()}")  # noqa: T201
    ours = measure_mcastd(samples, family)
    verdicts: list[tuple[str, float, float | None]] = []
    for count in (1, MANY):
        ratio = ours[f"{count} load"].p99 / ours[f"{count} idle"].p99
        verdicts.append((f"p99 under load / idle, {count} templates", ratio, 2.0))
    verdicts.append((f"p99 with {MANY} templates / with 1, idle", ours[f"{MANY} idle"].p99 / ours["1 idle"].p99, None))
    if shutil.which("smcrouted"):
        theirs = measure_smcroute(samples, family)
        for case, figures in theirs.items():
            verdicts.append((f"median of mcastd / SMCRoute, {case}", ours[case].median / figures.median, 1.0))
            verdicts.append((f"p99 of mcastd / SMCRoute, {case}", ours[case].p99 / figures.p99, None))
    else:
        print("SMCRoute is not installed (Debian package smcroute): it is left out")  # noqa: T201
    bad = 0
    for what, ratio, limit in verdicts:
        judged = "" if limit is None else f"  at most {limit:g}: {'yes' if ratio <= limit else 'NO'}"
        bad += limit is not None and ratio > limit
        print(f"{what:<58} {ratio:6.2f}{judged}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
