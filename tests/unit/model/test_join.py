"""mcastd.model.join: what a join stands for."""

import pytest

from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.join import JoinKey, Membership, route_join_key
from mcastd.model.route import Paths, Route, Template
from tests.fakerouter import template


def key(group: str, length: int, source: str = "", source_length: int = 0) -> JoinKey:
    return JoinKey("alice", "eth0", pack_address(group), length, pack_address(source) if source else b"", source_length)


@pytest.mark.parametrize(
    "one,size,text",
    [
        (key("239.1.1.1", 32), 1, "(*, 239.1.1.1) on eth0"),
        (key("239.1.1.0", 30, "10.0.0.0", 31), 8, "(10.0.0.0/31, 239.1.1.0/30) on eth0"),
        (key("ff3e::1", 128, "fd00::1", 128), 1, "(fd00::1, ff3e::1) on eth0"),
        (key("ff3e::", 120), 256, "(*, ff3e::/120) on eth0"),
        (key("ff3e::", 16), 1 << 112, "(*, ff3e::/16) on eth0"),
    ],
)
def test_size_and_text(one: JoinKey, size: int, text: str) -> None:
    assert one.size == size
    assert str(one) == text
    if size <= 4096:
        pairs = list(one.pairs())
        assert len(pairs) == len(set(pairs)) == size


def test_pairs_are_every_group_with_every_source() -> None:
    one = key("239.1.1.2", 31, "10.0.0.4", 31)
    groups, sources = ("239.1.1.2", "239.1.1.3"), ("10.0.0.4", "10.0.0.5")
    assert set(one.pairs()) == {(pack_address(g), pack_address(s)) for g in groups for s in sources}


def test_link_local_groups_are_left_out() -> None:
    groups = {group for group, _ in key("224.0.0.0", 23).pairs()}
    assert len(groups) == 256
    assert min(groups) == pack_address("224.0.1.0")


def test_the_last_address_is_there() -> None:
    assert max(group for group, _ in key("239.255.255.252", 30).pairs()) == pack_address("239.255.255.255")


def test_families() -> None:
    assert Membership(1, bytes(4), b"").family is Family.IPV4
    assert Membership(1, bytes(16), b"").family is Family.IPV6


@pytest.mark.parametrize("group,source", [("239.1.1.1", "10.0.0.1"), ("ff3e::1", "fd00::1")])
def test_the_join_of_a_route(group: str, source: str) -> None:
    bits = 128 if ":" in group else 32
    route = Route(exact_key(7, pack_address(group), pack_address(source)), Paths("eth0", ()), "alice", join=True)
    assert route_join_key(route) == key(group, bits, source, bits)
    tree = template(group, "", "eth0", shared_tree=True)
    assert route_join_key(tree) == key(group, bits)
    wide = template(f"{group}/{bits}", f"{source}/{bits}", "eth0")
    assert route_join_key(wide) == key(group, bits, source, bits)


def test_join_is_part_of_what_a_route_asks_for() -> None:
    for one in (Route(exact_key(0, bytes(4), bytes(4)), Paths("a", ()), "alice"), template("239.0.0.0/8", "", "a")):
        joining = one.copy()
        joining.join = True
        assert one.same_intent(one.copy())
        assert not one.same_intent(joining)
        assert joining.copy().join
        assert isinstance(joining.copy(), Template) == isinstance(one, Template)
