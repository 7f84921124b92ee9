"""Joins of a running daemon, as the kernel has them: /proc/net/igmp, igmp6, mcfilter, mcfilter6 and `ip maddr`."""

import re
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, address_text, pack_address
from tests.e2e.ctl import Ctl
from tests.e2e.router import Router, group
from tests.netns.memberships import group_table, source_table
from tests.testbed.daemon import wait_until

MANY = 2000

LIMITS = {
    Family.IPV4: ("net/ipv4/igmp_max_memberships", "20", "raise net.ipv4.igmp_max_memberships"),
    Family.IPV6: ("net/core/optmem_max", "131072", "join less"),  # Without such memory no socket can be kept either.
}
"""What bounds the memberships of one socket, a value that is enough, and words of the error."""


class Joins:
    """The join service of a router's daemon, and the router's kernel."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.family = router.family
        self.stub = sv_grpc.JoinServiceStub(router.daemon.channel)
        self.before = {name: group_table(router.namespace, self.family, name) for name in ("up", "down1", "down2")}
        """What the kernel itself, and the testbed, have joined."""

    def put(self, *joins: t.Join, **options: Any) -> list[t.Join]:
        """PutJoins; those that failed."""
        request = sv.PutJoinsRequest(joins=joins, options=rs.WriteOptions(**options))
        return list(self.stub.PutJoins(request, timeout=60).joins)

    def delete(self, *joins: t.Join, **options: Any) -> None:
        """DeleteJoins."""
        self.stub.DeleteJoins(sv.DeleteJoinsRequest(joins=joins, options=rs.WriteOptions(**options)), timeout=60)

    def listed(self) -> list[t.Join]:
        """ListJoins."""
        return [one for chunk in self.stub.ListJoins(sv.ListJoinsRequest(), timeout=60) for one in chunk.joins]

    def one(self, number: int = 1, interface: str = "down1", source: str = "", **fields: Any) -> t.Join:
        """A join by number."""
        return t.Join(interface=interface, group=group(self.family, number), source=source, **fields)

    def groups(self, interface: str = "down1") -> set[bytes]:
        """Groups that the daemon has joined on an interface, from any or some sources."""
        return group_table(self.router.namespace, self.family, interface) - self.before.get(interface, set())

    def sources(self, number: int = 1, interface: str = "down1") -> set[bytes]:
        """Sources that are joined of a group."""
        found = source_table(self.router.namespace, self.family)
        return found.get((interface, pack_address(group(self.family, number))), set())

    def address(self, number: int) -> str:
        """An address of a sender, by number."""
        return f"10.9.{number >> 8}.{number & 255}" if self.family is Family.IPV4 else f"fd00:9::{number:x}"


@pytest.fixture
def joins(router: Router) -> Joins:
    """A router's joins; it has no more than the limits of an ordinary host."""
    router.namespace.sysctl("net/ipv4/igmp_max_memberships", "20")
    return Joins(router)


def text(address: str) -> str:
    """An address as it is shown."""
    return address_text(pack_address(address))


def packed(family: Family, *numbers: int) -> set[bytes]:
    """Groups by number."""
    return {pack_address(group(family, number)) for number in numbers}


def test_a_join_is_in_the_kernel_when_it_is_answered(joins: Joins) -> None:
    any_source, one_source = joins.one(1), joins.one(2, source=joins.address(1))
    assert joins.put(any_source, one_source) == []
    assert joins.groups() == packed(joins.family, 1, 2)
    assert joins.sources(2) == {pack_address(joins.address(1))}
    assert joins.sources(1) == set()
    name = re.escape(text(group(joins.family, 1)))
    assert re.search(rf"inet6?\s+{name}\b", joins.router.namespace.command("ip", "maddr", "show", "dev", "down1"))
    assert joins.put(any_source) == [], "once more is as good"
    joins.delete(any_source)
    assert joins.groups() == packed(joins.family, 2)
    joins.delete(any_source, one_source)
    assert joins.groups() == set()
    assert joins.listed() == []


def test_two_owners_of_one_join_and_a_route(joins: Joins) -> None:
    router, source = joins.router, joins.router.source
    one = joins.one(1, "up", source=source)
    joins.put(one, owner="alice")
    joins.put(one, owner="bob")
    route = router.route(1, "down1", join=True)
    router.put(route)
    assert [(j.owner, j.group) for j in joins.listed()] == [(o, text(one.group)) for o in ("alice", "bob", route_owner(router))]
    for leave in (
        lambda: joins.delete(one, owner="alice"),
        lambda: router.daemon.delete(t.RouteKey(group=route.group, source=route.source)),
    ):
        leave()
        assert joins.sources(1, "up") == {pack_address(source)}, "somebody wants it still"
    joins.delete(one, owner="bob")
    assert joins.sources(1, "up") == set()
    assert joins.groups("up") == set()


def route_owner(router: Router) -> str:
    """The owner of the one route."""
    (one,) = router.daemon.list_routes()
    return one.status.owner


def test_any_source_and_single_sources_are_held_side_by_side(joins: Joins) -> None:
    everybody, some = joins.one(1), [joins.one(1, source=joins.address(n)) for n in range(15)]
    assert joins.put(everybody, *some) == []
    joins.delete(everybody)
    assert joins.sources() == {pack_address(joins.address(n)) for n in range(15)}
    joins.put(everybody)
    joins.delete(*some)
    assert (joins.groups(), joins.sources()) == (packed(joins.family, 1), set())


def test_prefixes_of_groups_and_sources(joins: Joins) -> None:
    bits = 32 if joins.family is Family.IPV4 else 128
    wide = t.Join(interface="down1", group=f"{group(joins.family, 0x100)}/{bits - 3}", source=f"{joins.address(8)}/{bits - 2}")
    assert joins.put(wide) == []
    assert joins.groups() == packed(joins.family, *range(0x100, 0x108))
    for number in range(0x100, 0x108):
        assert joins.sources(number) == {pack_address(joins.address(8 + n)) for n in range(4)}
    inside = joins.one(0x101, source=joins.address(9))
    joins.put(inside)
    joins.delete(wide)
    assert joins.groups() == packed(joins.family, 0x101), "a part of it is wanted by itself"
    assert joins.sources(0x101) == {pack_address(joins.address(9))}


def test_a_late_interface_a_rename_and_one_that_comes_back(joins: Joins) -> None:
    router = joins.router
    (told,) = joins.put(joins.one(1, "late"))
    assert told.error.reason == "NO_SUCH_INTERFACE"
    for _ in range(2):
        router.plug("late")
        wait_until(lambda: joins.groups("late") >= packed(joins.family, 1))
        wait_until(lambda: not joins.listed()[0].HasField("error"))
        router.namespace.ip("link delete late")
        wait_until(lambda: joins.listed()[0].error.reason == "NO_SUCH_INTERFACE")
    router.plug("other")
    router.rename("other", "late")
    wait_until(lambda: joins.groups("late") >= packed(joins.family, 1))
    router.rename("late", "elsewhere")
    wait_until(lambda: not joins.groups("elsewhere") & packed(joins.family, 1))
    router.rename("elsewhere", "late")
    wait_until(lambda: joins.groups("late") >= packed(joins.family, 1))


def test_a_glob_follows_interfaces(joins: Joins) -> None:
    router, want = joins.router, packed(joins.family, 5)
    assert joins.put(joins.one(5, "down*")) == []
    assert joins.groups("down1") == joins.groups("down2") == want
    assert not joins.groups("up") & want
    router.plug("down9")
    wait_until(lambda: joins.groups("down9") >= want)
    router.rename("down2", "x2")
    wait_until(lambda: not joins.groups("x2") & want)
    joins.delete(joins.one(5, "down*"))
    assert not any(joins.groups(name) & want for name in ("down1", "x2", "down9"))


def test_an_interface_that_is_down_is_joined_on(joins: Joins) -> None:
    joins.router.namespace.ip("link set dev down2 down")
    assert joins.put(joins.one(1, "down2")) == []
    joins.router.namespace.ip("link set dev down2 up")
    wait_until(lambda: joins.groups("down2") >= packed(joins.family, 1))


def test_templates_and_trees_join(joins: Joins) -> None:
    router, bits = joins.router, 32 if joins.family is Family.IPV4 else 128
    wide = t.Route(group=f"{group(joins.family, 0x40)}/{bits - 2}", iif="down*", oifs=[t.Oif(interface="up")], join=True)
    tree = t.Route(
        group=group(joins.family, 9), iif="up", oifs=[t.Oif(interface="down1")], join=True, wildcard=t.WILDCARD_SHARED_TREE
    )
    router.put(wide, tree)
    assert joins.groups("down1") == joins.groups("down2") == packed(joins.family, *range(0x40, 0x44))
    assert joins.groups("up") >= packed(joins.family, 9)
    router.daemon.delete(t.RouteKey(group=wide.group, iif="down*"), t.RouteKey(group=tree.group, iif="up"))
    assert joins.groups("down1") == set()
    assert not joins.groups("up") & packed(joins.family, 9)


def test_a_route_with_join_gets_traffic_that_somebody_must_ask_for(joins: Joins) -> None:
    """The route joins on its iif in the kernel, and forwards as any other."""
    router = joins.router
    sender = router.sender(3)
    router.put(router.route(sender, "down1", join=True))
    assert joins.sources(3, "up") == {pack_address(sender.source)}
    router.check_leaves(sender, "down1")
    router.put(router.route(sender, "down1"))
    assert joins.groups("up") == set()
    router.check_leaves(sender, "down1")


@pytest.mark.parametrize("source", [False, True], ids=["asm", "ssm"])
def test_thousands_on_one_interface_outlive_the_server(joins: Joins, source: bool) -> None:
    router = joins.router
    numbers = range(0x1000, 0x1000 + MANY)
    many = [joins.one(n, source=joins.address(n & 7) if source else "") for n in numbers]
    assert joins.put(*many) == []
    assert joins.groups() == packed(joins.family, *numbers)
    shown = joins.router.namespace.command("ip", "maddr", "show", "dev", "down1")
    assert len(re.findall(r"inet6?\s+(232|ff3e)", shown)) >= MANY
    if source:
        filters = source_table(router.namespace, joins.family)
        assert sum(len(found) for (name, _), found in filters.items() if name == "down1") == MANY
    assert joins.put(*many[:100]) == []

    router.wait_server_after(router.daemon.kill_server())
    assert joins.groups() == packed(joins.family, *numbers)
    assert len(joins.listed()) == MANY
    joins.delete(*many[: MANY // 2])
    assert joins.groups() == packed(joins.family, *numbers[MANY // 2 :])


def test_what_is_too_much_for_the_kernel_is_told(joins: Joins) -> None:
    """No memberships at all: the limit is raised later, and what failed is joined without being asked for again."""
    sysctl, enough, words = LIMITS[joins.family]
    joins.router.namespace.sysctl(sysctl, "0")
    (told,) = joins.put(joins.one(1))
    assert (told.error.reason, told.error.metadata["interface"]) == ("MEMBERSHIP_LIMIT", "down1")
    assert words in told.error.message
    assert joins.listed()[0].error.reason == "MEMBERSHIP_LIMIT"
    with pytest.raises(grpc.RpcError) as caught:
        joins.put(joins.one(2), all_or_nothing=True)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(joins.listed()) == 1
    joins.router.namespace.sysctl(sysctl, enough)
    wait_until(lambda: joins.groups() == packed(joins.family, 1), 15)
    assert not joins.listed()[0].HasField("error")


def test_joins_by_mcastctl(joins: Joins) -> None:
    ctl = Ctl(f"unix:{joins.router.daemon.socket}")
    one, other, source = group(joins.family, 1), group(joins.family, 2), joins.address(1)
    done = ctl.call("join", "add", "down1", one)
    assert (done.returncode, done.stdout, done.stderr.split()[0]) == (0, "", "revision")
    ctl.run("join", "add", "down*", other, source, "--cookie", "c")
    assert joins.groups() == packed(joins.family, 1, 2)
    rows = [line.split() for line in ctl.run("join", "list").splitlines()]
    assert [row[:3] for row in rows] == [
        ["INTERFACE", "GROUP", "SOURCE"],
        ["down1", text(one), "-"],
        ["down*", text(other), text(source)],
    ]
    assert len(ctl.run("join", "ls", "--match-cookie", "c").splitlines()) == 2
    done = ctl.call("join", "add", "none", one)
    assert done.returncode != 0, "it is not joined (yet)"
    assert "NO_SUCH_INTERFACE" in done.stderr
    ctl.run("join", "del", "none", one)
    ctl.run("join", "add", "-n", "down2", one)
    assert joins.groups("down2") == packed(joins.family, 2)
    done = ctl.call("join", "add", "down1", "10.0.0.1")
    assert done.returncode != 0
    assert "INVALID_GROUP" in done.stderr
    ctl.run("join", "del", "down1", one)
    ctl.run("join", "rm", "down*", other, source)
    assert joins.groups() == set()
    assert len(ctl.run("join", "list").splitlines()) <= 1
