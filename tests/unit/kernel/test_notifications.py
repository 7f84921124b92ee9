"""mcastd.kernel.notifications: decoding of notifications as the kernel sends them, and of any garbage."""

import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.kernel.mfc_dump import MfcPaths
from mcastd.kernel.notifications import REMOVED, Notices, decode, link_exists, vifs_of_interface
from mcastd.model.address import Family
from tests.unit.kernel.test_mfc_dump import MALFORMED, RTM_NEWLINK, RTM_NEWROUTE, RTNH_F_UNRESOLVED, key, message, route

RTM_DELROUTE, RTM_NEWNETCONF = 25, 80


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    value: Family = request.param
    return value


def told(notices: Notices) -> list[tuple[bytes, int, MfcPaths]]:
    """Key, whether it was removed, and paths of each change."""
    return [(entry.key, entry.unresolved, notices.entries.paths_of(entry)) for entry in notices.entries]


def notification(kind: int, payload: bytes) -> bytes:
    """As mroute_netlink_event sends it: no sequence, no flags."""
    return message(kind, payload, sequence=0, flags=0)


def test_changes_and_removals_come_in_their_order(family: Family) -> None:
    buffers = [
        notification(RTM_NEWROUTE, route(family, protocol=4, table=7)),
        notification(RTM_DELROUTE, route(family, table=7)),
        notification(RTM_NEWROUTE, route(family, protocol=4, table=7, oifs=[(5, 1), (4, 1)])),
        notification(RTM_DELROUTE, route(family, table=8)),
    ]
    notices = decode(family, buffers)
    assert told(notices) == [
        (key(family, 7), 0, MfcPaths(2, ((3, 1),))),
        (key(family, 7), REMOVED, MfcPaths(2, ((3, 1),))),
        (key(family, 7), 0, MfcPaths(2, ((4, 1), (5, 1)))),
        (key(family, 8), REMOVED, MfcPaths(2, ((3, 1),))),
    ]
    assert [entry.protocol for entry in notices.entries] == [4, 17, 4, 17]
    assert (notices.vifs, notices.lost) == (False, False)


def test_the_default_table_is_zero(family: Family) -> None:
    table = 253 if family is Family.IPV4 else 254
    assert told(decode(family, [notification(RTM_DELROUTE, route(family, table=table))]))[0][0] == key(family, 0)


@pytest.mark.parametrize("kind", [RTM_NEWROUTE, RTM_DELROUTE])
def test_entries_that_packets_wait_for_are_nothing(family: Family, kind: int) -> None:
    other = notification(RTM_DELROUTE, route(family))
    notices = decode(family, [notification(kind, route(family, flags=RTNH_F_UNRESOLVED)), other])
    assert [removed for _, removed, _ in told(notices)] == [REMOVED]


def test_what_is_said_of_interfaces_is_noted(family: Family) -> None:
    assert decode(family, [notification(RTM_NEWNETCONF, bytes(4))]).vifs
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    notices = decode(family, [notification(RTM_NEWLINK, b"link"), notification(RTM_DELROUTE, route(other))])
    assert (told(notices), notices.vifs, notices.lost) == ([], False, False)


@pytest.mark.parametrize("what", [name for name in MALFORMED if name != "an error without number"])
def test_what_cannot_be_understood_counts_as_lost(family: Family, what: str) -> None:
    good = notification(RTM_DELROUTE, route(family))
    notices = decode(family, [good, MALFORMED[what](family), good])
    assert notices.lost
    assert len(told(notices)) >= 2, "what can be understood is told"


SAMPLES = [
    notification(kind, route(family, oifs=[(n, 1) for n in range(2, 2 + count)], flags=flags))
    for family in Family
    for kind in (RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNETCONF)
    for count in (0, 1, 31, 33)
    for flags in (0, RTNH_F_UNRESOLVED)
]


def _mutations(seed: int) -> Iterable[bytes]:
    chance = random.Random(seed)
    for sample in SAMPLES:
        data = bytearray(sample)
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 3, 4, 16, 255, chance.randrange(256)))
        yield bytes(data[: chance.choice((len(data), chance.randrange(len(data) + 1)))])


@given(st.integers(0, 1 << 32), st.sampled_from(list(Family)), st.lists(st.binary(max_size=200), max_size=3))
def test_garbage_and_truncated_messages_never_crash(seed: int, family: Family, garbage: list[bytes]) -> None:
    good = notification(RTM_DELROUTE, route(family, table=9))
    notices = decode(family, [*_mutations(seed), *garbage, good])
    assert told(notices)[-1][:2] == (key(family, 9), REMOVED), "what comes after is understood"
    assert all(len(one[0]) == len(key(family, 0)) for one in told(notices))


FUZZ = """
import ctypes, mmap, random, sys
from mcastd.kernel._native import ffi, lib
libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE
area = mmap.mmap(-1, 2 * page)
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert libc.mprotect(ctypes.c_void_p(at + page), page, 0) == 0  # a read past the end ends this process
samples = [bytes.fromhex(line) for line in sys.stdin]
random.seed(2)
results = set()
for _ in range(40000):
    data = bytearray(random.choice(samples))
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        where = random.randrange(len(data))
        data[where] = random.choice((0, 1, 3, 4, 7, 8, 16, 255, random.randrange(256)))
    data = bytes(data[: random.choice((len(data), random.randrange(len(data) + 1)))])
    ctypes.memmove(at + page - len(data), data, len(data))
    notices = ffi.gc(lib.mr_notices_new(random.random() < 0.5), lib.mr_notices_free)
    results.add(lib.mr_notices_feed(notices, ffi.cast("uint8_t *", at + page - len(data)), len(data)))
print(sorted(results))
"""


def test_nothing_is_read_out_of_bounds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUZZ],
        input="\n".join(sample.hex() for sample in SAMPLES),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[-2, -1]\n"  # malformed and well-formed were both among them


def test_interfaces_that_are_not_there_say_nothing(family: Family) -> None:
    assert vifs_of_interface(family, "no such interface") is None
    assert vifs_of_interface(family, "lo") == 0
    assert link_exists(1)
    assert not link_exists(0x7FFFFFFF)
