"""Many new flows at once: each is installed or its loss is counted, whatever else comes in, and an exact route always wins."""

import ctypes
import os
import random
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import Router, bulk, group
from tests.e2e.templates import EVERY_GROUP, Spray, metric, template
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.rights import is_root

pytestmark = pytest.mark.kernel

BURST = 5000
_PIDFD_GETFD = 438  # asm-generic/unistd.h

PINGS = 20_000 if is_root() else 2_000  # The capture sees the answers too, and only root gives it a buffer for all of them.
ROUTES = 20_000
FIRST = 0x10000


@pytest.fixture
def large(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router whose caps are out of the way, with metrics."""
    with open_directory() as directory:
        (directory / "config.toml").write_text("[daemon]\nlearned_max = 100000\n")
        arguments = ("--config", str(directory / "config.toml"), *templates.METRICS)
        with Router(testbed, family, directory=directory, arguments=arguments) as router:
            yield router


def check_all_installed(router: Router, spray: Spray, count: int) -> None:
    """Every packet of a burst left, by an entry that the server knows of; no upcall was lost."""
    wait_until(lambda: len(router.kernel()) >= count, 20, lambda: str(len(router.kernel())))
    assert metric(router, "mcastd_upcall_queue_drops_total") == 0
    assert set(router.kernel().values()) == {("up", ("down1",))}
    router.departures.wait(spray, count)
    assert router.departures.duplicates(spray) == 0
    wait_until(lambda: metric(router, "mcastd_entries", origin="learned", family=router.family.name.lower()) == count)


def test_burst_of_new_groups(large: Router) -> None:
    """The buffer holds them all: each packet of 5,000 new groups is forwarded."""
    templates.put(large, template(EVERY_GROUP[large.family], "", "down1"))
    spray = Spray(large.star.source, large.family)
    spray.send_numbers(range(FIRST, FIRST + BURST))
    check_all_installed(large, spray, BURST)


def shrink_buffers(pid: int, size: int) -> None:
    """Make the receive buffers of a process's raw sockets smaller than they were."""
    pidfd, libc = os.pidfd_open(pid), ctypes.CDLL(None, use_errno=True)
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.readlink().name.startswith("socket:"):
                fd = libc.syscall(_PIDFD_GETFD, pidfd, int(link.name), 0)
                assert fd >= 0, os.strerror(ctypes.get_errno())
                with socket.socket(fileno=fd) as sock:
                    if sock.type == socket.SOCK_RAW and sock.family in {socket.AF_INET, socket.AF_INET6}:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    finally:
        os.close(pidfd)


def test_burst_that_no_buffer_holds(large: Router) -> None:
    """Sent while the keeper is stopped: what does not fit is lost, and just that is counted.

    The buffer is made smaller, since filling it (some 21,800 upcalls) takes the kernel long: it walks through all that is
    unresolved for each of them (ipmr_cache_unresolved).
    """
    templates.put(large, template(EVERY_GROUP[large.family], "", "down1"))
    spray = Spray(large.star.source, large.family)
    keeper = large.daemon.process.pid
    shrink_buffers(keeper, 1 << 18)
    os.kill(keeper, signal.SIGSTOP)
    try:
        spray.send_numbers(range(FIRST, FIRST + BURST))
    finally:
        os.kill(keeper, signal.SIGCONT)
    # The kernel tells of losses with the next upcall that it can deliver.
    late = large.sender(FIRST - 1)
    large.check_leaves(late, "down1", count=1)
    wait_until(lambda: metric(large, "mcastd_upcall_queue_drops_total") > 0)
    found = len(large.kernel()) - 1
    lost = int(metric(large, "mcastd_upcall_queue_drops_total"))
    assert (
        BURST <= found + lost <= BURST + 20
    )  # While the buffer is full the kernel counts ICMPv6 as well (mcastd.kernel.upcall).
    assert large.daemon.status().limits.kernel_upcalls_lost == lost


def raw(router: Router, protocol: int) -> socket.socket:
    """A raw socket of the source's, whose multicast goes to the router."""
    ipv4, source = router.family is Family.IPV4, router.star.source
    sock = source.namespace.socket(socket.AF_INET if ipv4 else socket.AF_INET6, socket.SOCK_RAW, protocol)
    if ipv4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", source.ifindex))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, source.ifindex)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 16)
    return sock


def flood(router: Router) -> None:
    """Pings to the router, and reports of group members, as fast as they go."""
    if router.family is Family.IPV4:
        protocols, everybody = (socket.IPPROTO_ICMP, socket.IPPROTO_IGMP), "224.0.0.22"
        echo, report = struct.pack("!BBHHH", 8, 0, 0xF7FD, 1, 1), struct.pack("!BBHHH", 0x22, 0, 0xDDFF, 0, 0)
    else:  # The kernel fills the checksum in.
        protocols, everybody = (socket.IPPROTO_ICMPV6, socket.IPPROTO_ICMPV6), "ff02::16"
        echo, report = struct.pack("!BBHHH", 128, 0, 0, 1, 1), struct.pack("!BBHHH", 143, 0, 0, 0, 0)
    with raw(router, protocols[0]) as pings, raw(router, protocols[1]) as reports:
        for _ in range(PINGS):
            pings.sendto(echo, (router.star.uplink.address(router.family), 0))
            reports.sendto(report, (everybody, 0))


def test_burst_among_pings_and_reports(large: Router) -> None:
    """20,000 of each at the same time; the sockets that read upcalls never see them."""
    templates.put(large, template(EVERY_GROUP[large.family], "", "down1"))
    thread = threading.Thread(target=flood, args=(large,))
    spray = Spray(large.star.source, large.family)
    thread.start()
    try:
        spray.spray(FIRST, BURST, rate=BURST)
        assert spray.finish() == BURST
    finally:
        thread.join()
    check_all_installed(large, spray, BURST)


def test_exact_routes_win_while_their_sources_send_already(large: Router) -> None:
    """20,000 of them, each added while its packets come and go through a template."""
    made = template(EVERY_GROUP[large.family], "", "down1")
    templates.put(large, made)
    spray = Spray(large.star.source, large.family)
    spray.spray(FIRST, ROUTES, rounds=0)
    routes = list(bulk(large.family, ROUTES, large.source, "down2", first=FIRST))
    random.shuffle(routes)
    for at in range(0, ROUTES, 500):
        assert large.daemon.put(*routes[at : at + 500]).failed == 0
    spray.stop()
    wait_until(lambda: metric(large, "mcastd_entries", origin="learned", family=large.family.name.lower()) == 0)
    kernel = large.kernel()
    assert len(kernel) == ROUTES
    wrong = [key.hex() for key, paths in kernel.items() if paths != ("up", ("down2",))]
    assert not wrong, f"{len(wrong)} of {ROUTES}: {wrong[:5]}"


def test_noise_disturbs_nothing(large: Router) -> None:
    """Random bytes of any protocol, to the router and to groups that are forwarded: none is taken for an upcall."""
    templates.put(large, template(EVERY_GROUP[large.family], "", "down1"))
    where = [large.star.uplink.address(large.family), *(group(large.family, number) for number in (1, 2))]
    protocols = [socket.IPPROTO_IGMP, socket.IPPROTO_ICMPV6, socket.IPPROTO_UDP, *random.sample(range(1, 255), 20)]
    for protocol in protocols:
        with raw(large, protocol) as sock:
            for _ in range(50):
                sock.sendto(random.randbytes(random.randrange(8, 80)), (random.choice(where), 0))
    large.check_leaves(large.sender(3), "down1", count=1)
    wait_until(lambda: len(templates.learned(large.daemon)) == 3)
    assert set(large.kernel().values()) == {("up", ("down1",))}
    assert large.daemon.process.poll() is None
    assert "level=error" not in large.daemon.log()
    assert "no upcall" not in large.daemon.log()
