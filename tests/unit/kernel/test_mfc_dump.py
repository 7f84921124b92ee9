"""mcastd.kernel.mfc_dump: decoding of messages as the kernel sends them, and of any garbage."""

import errno
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mcastd.kernel.mfc_dump import MfcPaths, decode
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import KernelRefused, McastdError, Reason

# linux/netlink.h, linux/rtnetlink.h
NLMSG_ERROR, NLMSG_DONE, RTM_NEWROUTE, RTM_NEWLINK = 2, 3, 24, 16
NLM_F_MULTI, NLM_F_DUMP_INTR = 0x2, 0x10
RTA_DST, RTA_SRC, RTA_IIF, RTA_MULTIPATH, RTA_TABLE, RTA_MFC_STATS, RTA_EXPIRES = 1, 2, 3, 9, 15, 17, 23
RTNH_F_UNRESOLVED = 32
SEQUENCE = 77

ADDRESSES = {Family.IPV4: ("239.1.1.1", "10.0.0.1"), Family.IPV6: ("ff3e::1", "fd00::1")}


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    value: Family = request.param
    return value


def message(kind: int, payload: bytes, *, sequence: int = SEQUENCE, flags: int = NLM_F_MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def hops(oifs: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBi", 8, 0, ttl, ifindex) for ifindex, ttl in oifs)


def route(
    family: Family,
    *more: bytes,
    table: int = 300,
    iif: int = 2,
    oifs: Iterable[tuple[int, int]] = ((3, 1),),
    protocol: int = 17,
    flags: int = 0,
    addresses: bool = True,
) -> bytes:
    """The payload of RTM_NEWROUTE as ipmr_fill_mroute makes it."""
    group, source = (pack_address(text) for text in ADDRESSES[family])
    head = struct.pack("=BBBBBBBBI", 128 if family is Family.IPV4 else 129, 32, 32, 0, table & 0xFF, protocol, 0, 5, flags)
    attributes = [attribute(RTA_TABLE, struct.pack("=I", table))]
    if addresses:
        attributes += [attribute(RTA_SRC, source), attribute(RTA_DST, group)]
    if iif:
        attributes.append(attribute(RTA_IIF, struct.pack("=i", iif)))
    attributes.append(attribute(RTA_MULTIPATH, hops(oifs)))
    attributes.append(attribute(RTA_MFC_STATS, struct.pack("=QQQ", 11, 12, 13)))
    attributes.append(attribute(RTA_EXPIRES, struct.pack("=Q", 250)))
    return head + b"".join(attributes) + b"".join(more)


DONE = message(NLMSG_DONE, struct.pack("=i", 0))


def key(family: Family, table: int) -> bytes:
    group, source = (pack_address(text) for text in ADDRESSES[family])
    return exact_key(table, group, source)


def test_an_entry_is_decoded_with_its_oifs_sorted(family: Family) -> None:
    seen, complete = decode(family, [message(RTM_NEWROUTE, route(family, oifs=[(9, 1), (4, 254), (300, 7)])) + DONE], SEQUENCE)

    assert complete
    [entry] = seen
    assert entry == (11, 12, 13, 2.5, 0, 17, 0, key(family, 300))
    assert seen.paths_of(entry) == MfcPaths(2, ((4, 254), (9, 1), (300, 7)))
    assert seen.by_key == {key(family, 300): entry}


@pytest.mark.parametrize("table", [253, 254, 255, 1 << 31])
def test_the_default_table_is_zero_in_its_family_alone(family: Family, table: int) -> None:
    [entry] = decode(family, [message(RTM_NEWROUTE, route(family, table=table)) + DONE], SEQUENCE)[0]
    default = 253 if family is Family.IPV4 else 254
    assert entry.key == key(family, 0 if table == default else table)


def test_unresolved_entries_have_no_paths_and_give_way_to_resolved_ones(family: Family) -> None:
    group, source = (pack_address(text) for text in ADDRESSES[family])
    head = struct.pack("=BBBBBBBBI", 128 if family is Family.IPV4 else 129, 32, 32, 0, 0, 17, 0, 5, RTNH_F_UNRESOLVED)
    bare = head + attribute(RTA_TABLE, struct.pack("=I", 7)) + attribute(RTA_SRC, source) + attribute(RTA_DST, group)
    unresolved, resolved = message(RTM_NEWROUTE, bare), message(RTM_NEWROUTE, route(family, table=7))

    [entry] = decode(family, [unresolved + DONE], SEQUENCE)[0]
    assert (entry.unresolved, entry.idle, entry.packets) == (1, -1.0, 0)
    for buffers in ([unresolved, resolved, DONE], [resolved, unresolved, DONE]):
        seen, _ = decode(family, buffers, SEQUENCE)
        assert len(seen) == 2
        assert [entry.unresolved for entry in seen.by_key.values()] == [0]


def test_alike_entries_share_their_paths_among_very_many_that_differ(family: Family) -> None:
    wanted = [MfcPaths(1 + n % 3, tuple((100 + bit, 1 + n % 5) for bit in range(13) if n >> bit & 1)) for n in range(5000)]
    buffers = [message(RTM_NEWROUTE, route(family, iif=paths.iif, oifs=reversed(paths.oifs))) for paths in wanted * 2]

    seen, complete = decode(family, [*buffers, DONE], SEQUENCE)

    assert complete
    assert len(seen) == 10_000
    assert sorted(seen.paths) == sorted(set(wanted))
    assert [seen.paths_of(entry) for entry in seen] == wanted * 2


def test_foreign_messages_are_passed_over(family: Family) -> None:
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    buffer = (
        message(RTM_NEWROUTE, route(family), sequence=SEQUENCE + 1)
        + message(NLMSG_DONE, b"", sequence=SEQUENCE + 1)
        + message(RTM_NEWLINK, b"link")
        + message(RTM_NEWROUTE, route(other))
        + message(RTM_NEWROUTE, route(family, attribute(99, b"new"), protocol=4))
    )
    seen, complete = decode(family, [buffer], SEQUENCE)
    assert not complete
    assert [entry.protocol for entry in seen] == [4]
    assert decode(family, [buffer, DONE], SEQUENCE)[1]


def test_an_interrupted_dump_says_so(family: Family) -> None:
    whole = message(RTM_NEWROUTE, route(family)) + DONE
    assert not decode(family, [whole], SEQUENCE)[0].interrupted
    torn = message(RTM_NEWROUTE, route(family), flags=NLM_F_MULTI | NLM_F_DUMP_INTR) + DONE
    assert decode(family, [torn], SEQUENCE)[0].interrupted
    late = message(RTM_NEWROUTE, route(family)) + message(NLMSG_DONE, bytes(4), flags=NLM_F_MULTI | NLM_F_DUMP_INTR)
    assert decode(family, [late], SEQUENCE)[0].interrupted


@pytest.mark.parametrize("kind", [NLMSG_ERROR, NLMSG_DONE])
def test_the_kernels_refusal_is_an_error(family: Family, kind: int) -> None:
    with pytest.raises(KernelRefused, match=r"dump of the IPv. multicast forwarding cache") as refused:
        decode(family, [message(kind, struct.pack("=i", -errno.EOPNOTSUPP) + bytes(16))], SEQUENCE)
    assert refused.value.errno == errno.EOPNOTSUPP


MALFORMED: dict[str, Callable[[Family], bytes]] = {
    "a message longer than the buffer": lambda family: message(RTM_NEWROUTE, route(family))[:-4],
    "a message shorter than its header": lambda _: struct.pack("=IHHII", 8, RTM_NEWROUTE, 2, SEQUENCE, 0),
    "a rest that is no message": lambda family: message(RTM_NEWROUTE, route(family)) + b"rest",
    "a route without its header": lambda _: message(RTM_NEWROUTE, bytes(8)),
    "an attribute longer than the message": lambda family: message(
        RTM_NEWROUTE, route(family, struct.pack("=HH", 9, 99) + b"four")
    ),
    "an attribute shorter than its header": lambda family: message(RTM_NEWROUTE, route(family, struct.pack("=HH", 3, 99))),
    "a rest that is no attribute": lambda family: message(RTM_NEWROUTE, route(family, b"at")),
    "an address that is too short": lambda family: message(RTM_NEWROUTE, route(family, attribute(RTA_SRC, b"abc"))),
    "counters that are too short": lambda family: message(RTM_NEWROUTE, route(family, attribute(RTA_MFC_STATS, bytes(20)))),
    "no addresses": lambda family: message(RTM_NEWROUTE, route(family, addresses=False)),
    "a nexthop longer than the list": lambda family: message(
        RTM_NEWROUTE, route(family, attribute(RTA_MULTIPATH, struct.pack("=HBBi", 12, 0, 1, 3)))
    ),
    "a nexthop shorter than itself": lambda family: message(
        RTM_NEWROUTE, route(family, attribute(RTA_MULTIPATH, struct.pack("=HBBi", 4, 0, 1, 3)))
    ),
    "a rest that is no nexthop": lambda family: message(
        RTM_NEWROUTE, route(family, attribute(RTA_MULTIPATH, hops([(3, 1)]) + b"rest"))
    ),
    "more oifs than there are VIFs": lambda family: message(RTM_NEWROUTE, route(family, oifs=[(n, 1) for n in range(1, 34)])),
    "an error without number": lambda _: message(NLMSG_ERROR, b""),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_messages_are_refused(family: Family, what: str) -> None:
    with pytest.raises(McastdError, match="malformed") as refused:
        decode(family, [MALFORMED[what](family), DONE], SEQUENCE)
    assert refused.value.reason is Reason.KERNEL_ERROR


FUZZ = """
import ctypes, mmap, random, sys
from mcastd.kernel._native import ffi, lib
libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE
area = mmap.mmap(-1, 2 * page)
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert libc.mprotect(ctypes.c_void_p(at + page), page, 0) == 0  # a read past the end ends this process
samples = [bytes.fromhex(line) for line in sys.stdin]
random.seed(1)
results = set()
for _ in range(40000):
    ipv6 = random.random() < 0.5
    data = bytearray(random.choice(samples))
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        where = random.randrange(len(data))
        data[where] = random.choice((0, 1, 3, 4, 7, 8, 16, 255, random.randrange(256)))
    data = bytes(data[: random.choice((len(data), random.randrange(len(data) + 1)))])
    ctypes.memmove(at + page - len(data), data, len(data))
    dump = ffi.gc(lib.mr_dump_new(ipv6, 77), lib.mr_dump_free)
    results.add(lib.mr_dump_feed(dump, ffi.cast("uint8_t *", at + page - len(data)), len(data)))
    out = ffi.new("uint8_t[]", lib.MR_UPCALL)
    for decode in (lib.mr_decode_upcall4, lib.mr_decode_upcall6):
        size = min(len(data), random.randrange(64))
        decode(ffi.cast("uint8_t *", at + page - size), size, out)
print(sorted(results)[:3])
"""


def test_nothing_is_read_out_of_bounds() -> None:
    samples = [
        message(RTM_NEWROUTE, route(family, oifs=[(n, 1) for n in range(2, 2 + count)])) * 2 + DONE
        for family in Family
        for count in (0, 1, 31, 33)
    ]
    done = subprocess.run(
        [sys.executable, "-c", FUZZ],
        input="\n".join(sample.hex() for sample in samples),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[-2, -1, 0]\n"  # malformed, more to come and complete were all among them
