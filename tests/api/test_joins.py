"""JoinService on a pool in memory: writes, refusals, lists; and Route.join."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import pack_address
from mcastd.model.join import Membership
from mcastd.runtime.tasks import cancel, spawn
from tests.api.bench import GROUPS, SOURCES, good, group
from tests.api.rig import Rig, refused, running
from tests.api.waiting import until

families = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A daemon on a kernel in memory."""
    async with running(Rig(tmp_path)) as made:
        yield made


def a_join(family: int = 4, interface: str = "up", *, number: int = 1, source: bool = False, **fields: Any) -> t.Join:
    """A join."""
    return t.Join(interface=interface, group=group(number, family), source=SOURCES[family] if source else "", **fields)


def member(one: t.Join, ifindex: int = 1) -> Membership:
    """Its membership."""
    return Membership(ifindex, pack_address(one.group), pack_address(one.source) if one.source else b"")


async def put(rig: Rig, *joins: t.Join, **options: Any) -> sv.PutJoinsResponse:
    """PutJoins."""
    request = sv.PutJoinsRequest(joins=joins, options=rs.WriteOptions(**options))
    answer: sv.PutJoinsResponse = await rig.joins.PutJoins(request, timeout=10)
    return answer


async def delete(rig: Rig, *joins: t.Join, **options: Any) -> sv.DeleteJoinsResponse:
    """DeleteJoins."""
    request = sv.DeleteJoinsRequest(joins=joins, options=rs.WriteOptions(**options))
    answer: sv.DeleteJoinsResponse = await rig.joins.DeleteJoins(request, timeout=10)
    return answer


async def listed(rig: Rig, **selector: Any) -> list[t.Join]:
    """ListJoins."""
    request = sv.ListJoinsRequest(selector=t.Selector(**selector))
    return [one async for chunk in rig.joins.ListJoins(request, timeout=10) for one in chunk.joins]


async def owner(rig: Rig, name: str = "admin") -> sv.Owner:
    """An owner, as GetStatus shows it."""
    status = await rig.status.GetStatus(sv.GetStatusRequest(), timeout=10)
    return next((one for one in status.owners if one.name == name), sv.Owner())


@families
async def test_a_join_is_in_the_kernel_when_it_is_answered(rig: Rig, family: int) -> None:
    one, two = a_join(family, cookie="c"), a_join(family, source=True)
    answer = await put(rig, one, two)
    assert list(answer.joins) == []
    assert rig.pool.joined == {member(one), member(two)}
    found = await listed(rig)
    assert [(j.interface, j.group, j.source, j.cookie) for j in found] == [
        ("up", one.group, "", "c"),
        ("up", two.group, two.source, ""),
    ]
    name = found[0].owner
    assert name
    assert (await owner(rig, name)).revision == answer.revision
    assert "joins" in (await rig.status.GetStatus(sv.GetStatusRequest())).features
    gone = await delete(rig, one)
    assert gone.revision > answer.revision
    assert rig.pool.joined == {member(two)}


@families
async def test_writes_are_idempotent(rig: Rig, family: int) -> None:
    one = a_join(family)
    first = await put(rig, one)
    rig.pool.calls.clear()
    assert (await put(rig, one)).revision == first.revision
    changed = await put(rig, a_join(family, cookie="other"))
    assert changed.revision > first.revision
    assert rig.pool.calls == []
    assert [j.cookie for j in await listed(rig)] == ["other"]
    assert (await delete(rig, a_join(family, number=9))).revision == changed.revision, "leaving what is not joined is success"
    await delete(rig, one)
    await delete(rig, one)
    assert await listed(rig) == []


@families
async def test_prefixes_and_what_is_listed_of_them(rig: Rig, family: int) -> None:
    bits = 32 if family == 4 else 128
    base = "239.1.1.0" if family == 4 else "ff3e::1:0"
    one = t.Join(interface="down*", group=f"{base}/{bits - 2}", source=f"{SOURCES[family]}/{bits}")
    await put(rig, one)
    assert len(rig.pool.joined) == 8
    (found,) = await listed(rig)
    assert (found.interface, found.group, found.source) == ("down*", f"{base}/{bits - 2}", SOURCES[family])
    await delete(rig, found)
    assert rig.pool.joined == set()


async def test_a_dry_run_changes_nothing(rig: Rig) -> None:
    before = await owner(rig)
    answer = await put(rig, a_join(), validate_only=True)
    assert list(answer.joins) == []
    assert (rig.pool.calls, await listed(rig), await owner(rig)) == ([], [], before)
    await put(rig, a_join())
    await delete(rig, a_join(), validate_only=True)
    assert len(await listed(rig)) == len(rig.pool.joined) == 1


@families
async def test_each_owner_has_joins_of_its_own(rig: Rig, family: int) -> None:
    one = a_join(family)
    await put(rig, one, owner="alice")
    await put(rig, one, owner="bob")
    assert [j.owner for j in await listed(rig)] == ["alice", "bob"]
    await delete(rig, one, owner="carol")
    await delete(rig, one, owner="alice")
    assert rig.pool.joined == {member(one)}
    assert [j.owner for j in await listed(rig)] == ["bob"]
    await delete(rig, one, owner="bob")
    assert rig.pool.joined == set()


@families
async def test_a_join_for_an_interface_that_is_not_there_waits_for_it(rig: Rig, family: int) -> None:
    one = a_join(family, "late")
    (told,) = (await put(rig, one)).joins
    assert told.error.reason == "NO_SUCH_INTERFACE"
    assert told.error.metadata["interface"] == "late"
    assert (await listed(rig))[0].error.reason == "NO_SUCH_INTERFACE"
    rig.link(9, "late")
    await until(lambda: rig.pool.joined == {member(one, 9)})
    assert not (await listed(rig))[0].HasField("error")
    assert list((await put(rig, one)).joins) == []


@families
@pytest.mark.parametrize("source", [False, True])
async def test_what_the_kernel_refuses_is_in_the_answer(rig: Rig, family: int, source: bool) -> None:
    bad, fine = a_join(family, source=source), a_join(family, number=2)
    rig.pool.refuses = lambda m: errno.ENOBUFS if m == member(bad) else 0
    answer = await put(rig, bad, fine)
    (told,) = answer.joins
    reason = "SOURCE_FILTER_LIMIT" if source else "MEMBERSHIP_LIMIT"
    assert (told.group, told.source, told.error.reason, told.error.code) == (bad.group, bad.source, reason, 8)
    assert rig.pool.joined == {member(fine)}
    assert {j.error.reason for j in await listed(rig)} == {"", reason}
    assert [j.error.reason for j in (await put(rig, bad)).joins] == [reason], "putting it again tries it again"
    rig.pool.refuses = lambda _: 0
    assert list((await put(rig, bad)).joins) == []
    assert rig.pool.joined == {member(bad), member(fine)}


@families
async def test_all_or_nothing_is_undone(rig: Rig, family: int) -> None:
    old, new, bad = a_join(family, cookie="old"), a_join(family, number=2), a_join(family, number=3)
    await put(rig, old)
    rig.pool.refuses = lambda m: errno.EPERM if m == member(bad) else 0
    call = put(rig, a_join(family, cookie="new"), new, new, bad, all_or_nothing=True)
    found = await refused(call)
    assert found.reason == "KERNEL_ERROR"
    assert "item 3" in found.message
    assert "put back" in found.message
    assert rig.pool.joined == {member(old)}
    assert [(j.group, j.cookie) for j in await listed(rig)] == [(old.group, "old")]
    rig.pool.refuses = lambda _: 0
    await put(rig, new, bad, a_join(family, "late"), all_or_nothing=True)
    assert len(await listed(rig)) == 4, "an interface that is not there yet is no failure"


async def test_preconditions_hold_for_joins(rig: Rig) -> None:
    first = await put(rig, a_join(), owner="alice", epoch=5)
    found = await refused(put(rig, a_join(number=2), owner="alice", epoch=4))
    assert found.reason == "STALE_EPOCH"
    await put(rig, a_join(number=2), owner="alice", epoch=5)
    found = await refused(delete(rig, a_join(), owner="alice", if_revision=first.revision))
    assert found.reason == "REVISION_MISMATCH"
    assert len(await listed(rig)) == 2


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"group": ""}, "INVALID_GROUP", "joins[1].group"),
    ({"group": "10.0.0.1"}, "INVALID_GROUP", "joins[1].group"),
    ({"group": "224.0.0.5"}, "LINK_LOCAL_GROUP", "joins[1].group"),
    ({"group": "ff02::5"}, "LINK_LOCAL_GROUP", "joins[1].group"),
    ({"group": "239.1.1.1/24"}, "INVALID_GROUP", "joins[1].group"),
    ({"group": "239.0.0.0/19"}, "INVALID_VALUE", "joins[1].group"),
    ({"group": "ff3e::/64"}, "INVALID_VALUE", "joins[1].group"),
    ({"group": "239.0.0.0/25", "source": "10.0.0.0/26"}, "INVALID_VALUE", "joins[1].group"),
    ({"source": "fd00::1"}, "FAMILY_MISMATCH", "joins[1].source"),
    ({"source": "239.1.1.1"}, "INVALID_SOURCE", "joins[1].source"),
    ({"source": "239.1.1.0/30"}, "INVALID_SOURCE", "joins[1].source"),
    ({"source": "x"}, "INVALID_SOURCE", "joins[1].source"),
    ({"interface": ""}, "INVALID_INTERFACE", "joins[1].interface"),
    ({"interface": "a/b"}, "INVALID_INTERFACE", "joins[1].interface"),
    ({"source": "127.0.0.0/24"}, "INVALID_SOURCE", "joins[1].source"),
    ({"cookie": "x" * 65}, "INVALID_VALUE", "joins[1].cookie"),
]


@pytest.mark.parametrize("fields,reason,field", BAD)
async def test_bad_joins_are_refused_whole(rig: Rig, fields: dict[str, Any], reason: str, field: str) -> None:
    bad = t.Join(**{"interface": "up", "group": "239.1.1.1", **fields})
    found = await refused(put(rig, a_join(), bad))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert found.metadata["field"] == field
    assert (await listed(rig), rig.pool.calls) == ([], [])
    if "cookie" not in fields:
        assert (await refused(delete(rig, a_join(), bad))).reason == reason


async def test_options_that_make_no_sense_are_refused(rig: Rig) -> None:
    found = await refused(put(rig, a_join(), take_over=True))
    assert found.metadata["field"] == "options.take_over"
    found = await refused(put(rig, *[t.Join()] * 10_001))
    assert found.reason == "TOO_MANY_ITEMS"
    found = await refused(listed(rig, table=0))
    assert found.metadata["field"] == "selector.table"


async def test_there_are_so_many_joins_and_memberships_at_most(tmp_path: Path) -> None:
    rig = Rig(tmp_path, joins_max=3, memberships_max=300)
    async with running(rig):
        await put(rig, a_join(number=1), a_join(number=2))
        found = await refused(put(rig, a_join(number=3), a_join(number=4)))
        assert (found.reason, found.metadata) == ("MEMBERSHIP_LIMIT", {"limit": "3", "would": "4"})
        assert len(await listed(rig)) == 2
        (told,) = (await put(rig, t.Join(interface="up", group="239.9.0.0/23"))).joins
        assert told.error.reason == "MEMBERSHIP_LIMIT"
        assert told.error.metadata["limit"] == "300"


@families
async def test_lists_are_narrowed(rig: Rig, family: int) -> None:
    base = GROUPS[family].format(0, 0).rsplit("0", 1)[0]
    await put(rig, a_join(family, cookie="x"), a_join(family, "down*", number=2, source=True), owner="alice")
    await put(rig, a_join(family, "late", number=300), owner="bob")
    assert len(await listed(rig)) == 3

    async def groups(**selector: Any) -> set[str]:
        return {j.group for j in await listed(rig, **selector)}

    one, two, late = (group(n, family) for n in (1, 2, 300))
    bits = 24 if family == 4 else 112
    assert await groups(owner="alice") == {one, two}
    assert await groups(cookie="x") == {one}
    assert await groups(interface="up") == {one}
    assert await groups(interface="down1") == {two}, "where a pattern has matched"
    assert await groups(interface="down*") == {two}
    assert await groups(interface="l*") == {late}
    assert await groups(group=two) == {two}
    assert await groups(group=f"{base}0/{bits}") >= {one, two}
    assert await groups(source=SOURCES[family]) == {two}
    assert await groups(source="0.0.0.0/0" if family == 4 else "::/0") == {one, two, late}
    assert await groups(source="::/0" if family == 4 else "0.0.0.0/0") == set()
    assert await groups(owner="alice", group=late) == set()


async def test_many_joins_come_in_chunks(rig: Rig) -> None:
    await put(rig, *[a_join(number=n) for n in range(1, 2501)])
    chunks = [chunk async for chunk in rig.joins.ListJoins(sv.ListJoinsRequest(), timeout=10)]
    assert [len(chunk.joins) for chunk in chunks] == [1000, 1000, 500]
    assert len(rig.pool.joined) == 2500


async def test_more_failures_than_a_client_can_receive_are_counted(rig: Rig) -> None:
    rig.pool.refuses = lambda _: errno.ENOBUFS
    request = sv.PutJoinsRequest(joins=[a_join(number=n) for n in range(1, 10_001)])
    call = rig.joins.PutJoins(request, timeout=30)
    answer = await call
    trailers = dict(await call.trailing_metadata())
    assert len(answer.joins) + int(trailers.get("mcastd-changes-omitted", 0)) == 10_000
    assert answer.ByteSize() < 4 << 20


@families
async def test_a_route_joins_while_it_is_wanted(rig: Rig, family: int) -> None:
    one = good(1, family, join=True, cookie="r")
    made = Membership(1, pack_address(one.group), pack_address(one.source))
    await rig.put(one)
    assert rig.pool.joined == {made}
    (listed_route,) = await rig.listed()
    assert listed_route.join
    (join,) = await listed(rig)
    assert (join.interface, join.group, join.source, join.cookie) == ("up", one.group, one.source, "r")
    assert join.owner == listed_route.status.owner
    assert (await rig.put(one)).unchanged == 1
    await delete(rig, join)
    assert rig.pool.joined == {made}, "the route wants it still"
    result = await rig.put(good(1, family))
    assert result.updated == 1
    assert rig.pool.joined == set()
    assert not (await rig.listed())[0].join
    assert await listed(rig) == []
    await rig.put(one)
    await rig.routes.DeleteRoutes(rs.DeleteRoutesRequest(all=True))
    assert rig.pool.joined == set()


@families
async def test_a_patch_and_a_set_keep_to_what_is_said_of_joins(rig: Rig, family: int) -> None:
    one = good(1, family, join=True)
    await rig.put(one)
    rig.pool.calls.clear()
    key = t.RouteKey(group=one.group, source=one.source)
    patch = t.RoutePatch(key=key, add_oifs=[t.Oif(interface="down2")])
    await rig.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[patch]))
    assert (await rig.replace([good(1, family, "down1", "down2", join=True)])).unchanged == 1
    assert rig.pool.calls == [], "nothing was left, nothing joined again"
    assert (await rig.replace([good(1, family, "down1", "down2")])).updated == 1
    assert rig.pool.joined == set()


@families
async def test_a_template_joins_its_prefixes(rig: Rig, family: int) -> None:
    bits = 32 if family == 4 else 128
    base = "239.1.1.0" if family == 4 else "ff3e::1:0"
    wide = t.Route(group=f"{base}/{bits - 3}", iif="down*", oifs=[t.Oif(interface="up")], join=True)
    await rig.put(wide)
    assert {m.ifindex for m in rig.pool.joined} == {2, 3}
    assert len(rig.pool.joined) == 16
    tree = t.Route(group=group(7, family), iif="up", oifs=[t.Oif(interface="down1")], join=True, wildcard=t.WILDCARD_SHARED_TREE)
    await rig.put(tree)
    assert Membership(1, pack_address(tree.group), b"") in rig.pool.joined
    assert all(one.join for one in await rig.listed())


async def test_templates_that_can_not_be_joined_are_refused(rig: Rig) -> None:
    anywhere = t.Route(group="239.1.1.1", oifs=[t.Oif(interface="up")], join=True)
    found = await refused(rig.put(anywhere))
    assert (found.reason, found.metadata["field"]) == ("INVALID_INTERFACE", "routes[0].iif")
    wide = t.Route(group="239.0.0.0/8", iif="up", oifs=[t.Oif(interface="down1")], join=True)
    found = await refused(rig.put(wide))
    assert (found.reason, found.metadata["field"]) == ("INVALID_VALUE", "routes[0].group")


@families
async def test_a_join_of_a_route_that_fails_is_in_its_answer(rig: Rig, family: int) -> None:
    one = good(1, family, join=True)
    rig.pool.refuses = lambda _: errno.EMFILE
    result = await rig.put(one)
    assert (result.created, result.failed) == (1, 1)
    (change,) = result.changes
    assert change.error.reason == "MEMBERSHIP_LIMIT"
    assert change.after.status.state == t.ROUTE_STATE_PROGRAMMED
    assert (await rig.listed())[0].status.last_error.reason == "MEMBERSHIP_LIMIT"
    found = await refused(rig.put(good(2, family, join=True), all_or_nothing=True))
    assert found.reason == "MEMBERSHIP_LIMIT"
    assert len(await rig.listed()) == 1
    rig.pool.refuses = lambda _: 0
    assert (await rig.put(one)).failed == 0
    assert len(rig.pool.joined) == 1


@families
async def test_joins_are_there_after_a_restart(tmp_path: Path, family: int) -> None:
    rig = Rig(tmp_path)
    kept, gone, wide = a_join(family, cookie="k"), a_join(family, number=2), a_join(family, "late", source=True)
    async with running(rig):
        await put(rig, kept, gone, wide, owner="alice")
        await delete(rig, gone, owner="alice")
        await rig.put(good(1, family, join=True))
        before, joined = await listed(rig), set(rig.pool.joined)
    again = Rig(tmp_path)
    again.pool.joined = set(joined)
    await again.daemon.joiner.adopt([])
    async with running(again):
        again.daemon.joiner.wake()
        await again.daemon.joiner.quiet()
        key = lambda one: (one.owner, one.interface, one.source)  # noqa: E731 - for two lists
        assert sorted(await listed(again), key=key) == sorted(before, key=key)
        assert again.pool.joined == joined
        assert again.pool.calls == [], "a restart changes nothing that is right"


async def watched(rig: Rig) -> AsyncIterator[sv.WatchResponse]:
    """What a follower of joins is told, from a snapshot on."""
    call = sv_grpc.EventServiceStub(rig.channel).Watch(sv.WatchRequest(kinds=[sv.KIND_JOIN]))
    async for message in call:
        yield message


@families
async def test_followers_are_told_of_joins(rig: Rig, family: int) -> None:
    one, late = a_join(family, cookie="c"), a_join(family, "late")
    await put(rig, one)
    told: dict[tuple[str, str], t.Join] = {}
    gone: set[tuple[str, str]] = set()

    async def follow() -> None:
        async for message in watched(rig):
            for event in message.events:
                key = event.join.owner, event.join.interface
                if event.type == sv.Event.TYPE_PUT:
                    told[key] = event.join
                else:
                    told.pop(key)
                    gone.add(key)

    following = spawn(follow(), "follower")
    owner = (await listed(rig))[0].owner
    try:
        await until(lambda: set(told) == {(owner, "up")})
        assert told[owner, "up"] == (await listed(rig))[0]
        await put(rig, late)
        await until(lambda: (owner, "late") in told and told[owner, "late"].error.reason == "NO_SUCH_INTERFACE")
        rig.link(9, "late")
        await until(lambda: not told[owner, "late"].HasField("error"))
        await delete(rig, one)
        await until(lambda: gone == {(owner, "up")})
        await rig.put(good(1, family, join=True), owner="bob")
        await until(lambda: ("bob", "up") in told)
        await rig.routes.DeleteRoutes(rs.DeleteRoutesRequest(all=True, options=rs.WriteOptions(owner="bob")))
        await until(lambda: ("bob", "up") in gone)
    finally:
        await cancel(following)
