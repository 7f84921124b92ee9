"""mcastd.kernel.joinlist: the kernel's two lists; the real ones are read in tests/netns/test_joins.py."""

import sys

import pytest

from mcastd.kernel.joinlist import read_igmp, read_igmp6
from mcastd.kernel.joinnotes import Spot

IGMP = """Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
12\tmy:if    :     2      V3
\t\t\t\t0A0101EF     1 0:00000000\t\t0
\t\t\t\t010000E0     1 0:00000000\t\t0
"""

IGMP6 = """1    lo              ff020000000000000000000000000001     1 0000000C 0
12   up              ff150000000000000000000000010001     2 00000004 0
"""


@pytest.mark.skipif(sys.byteorder == "big", reason="the list shows groups as numbers of the machine")
def test_groups_are_those_of_the_interface_above_them() -> None:
    all_hosts = bytes([224, 0, 0, 1])
    assert list(read_igmp(IGMP.splitlines())) == [Spot(1, all_hosts), Spot(12, bytes([239, 1, 1, 10])), Spot(12, all_hosts)]
    assert list(read_igmp([])) == []


def test_each_line_of_ipv6_has_it_all() -> None:
    assert list(read_igmp6(IGMP6.splitlines())) == [
        Spot(1, bytes.fromhex("ff020000000000000000000000000001")),
        Spot(12, bytes.fromhex("ff150000000000000000000000010001")),
    ]
