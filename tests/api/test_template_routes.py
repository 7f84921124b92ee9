"""Templates and shared trees over the API: written, listed, named by key, selected; and what they have learned."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api.convert import RouteReader
from mcastd.api.ports import CounterSample
from mcastd.core.templates import template_name
from mcastd.model.address import Family, exact_key, key_family, pack_address
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.route import Counters
from mcastd.model.settings import Access
from mcastd.model.write import PutRoutes, WriteOptions
from tests.api.bench import good
from tests.api.rig import Rig, refused, running

SG = exact_key(0, pack_address("239.1.1.1"), pack_address("10.0.0.7"))
STRAY = exact_key(0, pack_address("239.9.9.9"), pack_address("10.0.0.7"))
TREE = t.WILDCARD_SHARED_TREE


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(Rig(tmp_path)) as one:
        yield one


def wild(group: str = "239.1.0.0/16", source: str = "", iif: str = "up", *oifs: str, **fields: object) -> t.Route:
    """A template as a client writes it."""
    made = t.Route(group=group, source=source, iif=iif, oifs=[t.Oif(interface=name) for name in oifs or ("down1",)])
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def tell(rig: Rig, key: bytes, answer: Answer = Answer.NONE, template: bytes = bytes(8)) -> None:
    """The keeper tells of a packet that came in on `up`; the kernel has what it says to have put there."""
    vifs = rig.kernel.tables[0, key_family(key)].vifs
    rig.engine.upcall(key, UpcallKind.NOCACHE, vifs.index(1), answer, template, 2000.0)
    rig.daemon.executor.wake()
    await rig.daemon.executor.quiet()


def sample_of(rig: Rig, monkeypatch: pytest.MonkeyPatch, *keys: bytes) -> None:
    """Counters without a kernel."""

    async def sample(_max_age: float) -> CounterSample:
        return CounterSample({key: Counters(7, 700, 0, 1999.0) for key in keys}, 2000.0, {}, 0.0)

    monkeypatch.setattr(rig.daemon, "counters", sample)


# --- written and listed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written,group,source",
    [
        (("239.1.0.0/16", ""), "239.1.0.0/16", ""),
        (("239.1.1.1", ""), "239.1.1.1", ""),
        (("239.1.1.1/32", "0.0.0.0/0"), "239.1.1.1", ""),
        (("224.0.0.0/4", "10.0.0.0/8"), "224.0.0.0/4", "10.0.0.0/8"),
        (("239.1.0.0/31", "10.0.0.1"), "239.1.0.0/31", "10.0.0.1"),
        (("FF3E:0::/64", ""), "ff3e::/64", ""),
        (("ff3e::1/128", "FD00::/16"), "ff3e::1", "fd00::/16"),
        (("ff00::/8", "::/0"), "ff00::/8", ""),
    ],
)
async def test_prefixes_come_back_in_their_one_form(rig: Rig, written: tuple[str, str], group: str, source: str) -> None:
    result = await rig.put(wild(*written), return_changes=True)
    assert (result.created, result.failed) == (1, 0)
    (one,) = await rig.listed()
    assert (one.group, one.source, one.iif) == (group, source, "up")
    assert one.status.state == t.ROUTE_STATE_TEMPLATE
    assert one.status.origin == t.ORIGIN_CONFIGURED
    one.ClearField("status")
    again = await rig.put(one)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 1), "what is listed can be written again"


async def test_full_lengths_are_an_exact_route(rig: Rig) -> None:
    await rig.put(wild("239.1.1.1/32", "10.0.0.1/32"))
    (one,) = await rig.listed()
    assert (one.group, one.source) == ("239.1.1.1", "10.0.0.1")
    assert one.status.state == t.ROUTE_STATE_PROGRAMMED


async def test_every_field_of_a_template_comes_back(rig: Rig) -> None:
    one = wild("239.1.0.0/16", "10.0.0.0/8", "u*", "down*", "!down2", cookie="c", monitored=True)
    one.oifs.add(interface="up", ttl_threshold=9)
    one.idle_timeout.FromMilliseconds(2_500)
    await rig.put(one)
    (listed,) = await rig.listed()
    listed.ClearField("status")
    one.oifs.sort(key=lambda oif: oif.interface)
    assert listed == one
    assert [change.action is not None for change in rig.keeper.templates] == [True]


@pytest.mark.parametrize("seconds", [1, 86_400])
async def test_idle_timeouts_that_can_be(rig: Rig, seconds: int) -> None:
    one = wild()
    one.idle_timeout.FromSeconds(seconds)
    await rig.put(one)
    assert (await rig.listed())[0].idle_timeout.ToSeconds() == seconds
    one.ClearField("idle_timeout")
    assert (await rig.put(one)).updated == 1
    assert not (await rig.listed())[0].HasField("idle_timeout")


async def test_iif_is_part_of_the_identity_of_a_template_alone(rig: Rig) -> None:
    assert (await rig.put(wild(), wild(iif="down2"), wild(iif=""), wild(iif="u*"))).created == 4
    assert (await rig.put(good(1), t.Route(group=good(1).group, source=good(1).source, iif="down2"))).updated == 1
    assert len(await rig.listed()) == 5


async def test_templates_wait_for_their_interfaces(rig: Rig) -> None:
    await rig.put(wild(iif="later"), wild("239.2.0.0/16", "", "up", "later"))
    states = {one.group: (one.status.state, list(one.status.missing_interfaces)) for one in await rig.listed()}
    assert states == {
        "239.1.0.0/16": (t.ROUTE_STATE_PENDING, ["later"]),
        "239.2.0.0/16": (t.ROUTE_STATE_PARTIAL, ["later"]),
    }
    rig.link(9, "later")
    await rig.daemon.executor.quiet()
    assert {one.status.state for one in await rig.listed()} == {t.ROUTE_STATE_TEMPLATE}


async def test_set_may_hold_templates_each_once(rig: Rig) -> None:
    await rig.put(wild("239.3.0.0/16"))
    assert (await rig.replace([wild(), wild(iif=""), good(1)])).deleted == 1
    found = await refused(rig.replace([wild(), good(1), wild(group="239.1.0.0/16", source="0.0.0.0/0")]))
    assert (found.reason, found.metadata["field"]) == ("DUPLICATE_ROUTE", "routes[2]")
    assert (found.metadata["group"], found.metadata["source"]) == ("239.1.0.0/16", "")


async def test_selectors_know_prefixes(rig: Rig) -> None:
    await rig.put(wild(), wild("239.1.1.0/24", "10.1.0.0/16", "", "down2"), wild("239.0.0.0/8"), good(1), wild("ff3e::/64"))

    async def groups(**selector: object) -> list[str]:
        return [one.group for one in await rig.listed(selector=t.Selector(**selector))]  # type: ignore[arg-type]

    assert await groups(group="239.1.0.0/16") == ["239.1.0.0/16", "239.1.1.0/24", good(1).group]
    assert await groups(group="239.1.1.0/24") == ["239.1.1.0/24"]
    assert await groups(source="10.0.0.0/8") == ["239.1.1.0/24", good(1).group], "any source is inside none but /0"
    assert await groups(source="0.0.0.0/0") == ["239.1.0.0/16", "239.1.1.0/24", "239.0.0.0/8", good(1).group]
    assert await groups(interface="down2") == ["239.1.1.0/24"]
    assert await groups(states=[t.ROUTE_STATE_TEMPLATE]) == ["239.1.0.0/16", "239.1.1.0/24", "239.0.0.0/8", "ff3e::/64"]


# --- keys ------------------------------------------------------------------------------------------------------------


async def delete(rig: Rig, **key: object) -> int:
    """Delete by key; how many."""
    answer = await rig.routes.DeleteRoutes(rs.DeleteRoutesRequest(keys=[t.RouteKey(**key)]))  # type: ignore[arg-type]
    deleted: int = answer.result.deleted
    return deleted


async def test_template_alone_with_its_prefixes_needs_no_iif(rig: Rig) -> None:
    await rig.put(wild(), wild("239.1.0.0/17"), wild("239.1.0.0/16", "10.0.0.0/8"))
    patch = t.RoutePatch(key=t.RouteKey(group="239.1.0.0/16"), add_oifs=[t.Oif(interface="down2")])
    answer = await rig.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[patch]))
    assert answer.result.updated == 1
    assert [len(one.oifs) for one in await rig.listed()] == [2, 1, 1]
    assert await delete(rig, group="239.1.0.0/16") == 1
    assert [one.group for one in await rig.listed()] == ["239.1.0.0/17", "239.1.0.0/16"]
    assert await delete(rig, group="239.1.0.0/17", iif="down1") == 0, "the iif that is said must be right"
    assert await delete(rig, group="239.1.0.0/17", iif="up") == 1


async def test_several_that_differ_in_iif_alone_are_ambiguous(rig: Rig) -> None:
    await rig.put(wild(), wild(iif="d*"))
    for call in (
        rig.routes.DeleteRoutes(rs.DeleteRoutesRequest(keys=[t.RouteKey(group="239.1.0.0/16")])),
        rig.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[t.RoutePatch(key=t.RouteKey(group="239.1.0.0/16"))])),
    ):
        found = await refused(call)
        assert found.reason == "AMBIGUOUS"
        assert found.metadata["iifs"] == "d*, up"
        assert "say the iif (d*, up)" in found.message
    await rig.put(wild(iif=""))
    assert await delete(rig, group="239.1.0.0/16") == 1, "that of any iif has just this key"
    assert sorted(one.iif for one in await rig.listed()) == ["d*", "up"]
    assert await delete(rig, group="239.1.0.0/16", iif="d*") == 1


async def test_patch_of_a_template_that_is_not_there_fails_alone(rig: Rig) -> None:
    patch = t.RoutePatch(key=t.RouteKey(group="239.1.0.0/16"), add_oifs=[t.Oif(interface="down2")])
    answer = await rig.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[patch]))
    assert [change.error.reason for change in answer.result.changes] == ["NOT_FOUND"]
    assert "(*, 239.1.0.0/16)" in answer.result.changes[0].error.message


# --- shared trees ----------------------------------------------------------------------------------------------------


async def test_shared_tree_is_one_entry(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.put(wild("239.1.1.1", "", "up", "down1", wildcard=TREE))
    entry = exact_key(0, pack_address("239.1.1.1"), bytes(4))
    assert rig.kernel.paths(entry) == (1, {1: 1, 2: 1})
    sample_of(rig, monkeypatch, entry)
    (one,) = await rig.listed(counters=True)
    assert one.status.counters.packets == 7
    assert (one.status.state, one.wildcard) == (t.ROUTE_STATE_PROGRAMMED, TREE)
    assert list(one.status.installed_oifs) == ["down1", "up"]
    one.ClearField("status")
    assert (await rig.put(one)).unchanged == 1
    assert await delete(rig, group="239.1.1.1") == 1
    assert rig.kernel.paths(entry) is None


@pytest.mark.parametrize("tree_first", [True, False])
async def test_shared_tree_stands_no_other_of_its_group(rig: Rig, tree_first: bool) -> None:
    tree = wild("239.1.1.1", "", "up", "down1", wildcard=TREE)
    others = [wild("239.1.1.1", "10.0.0.0/8"), wild("239.1.1.1", "", "down2"), wild("239.1.1.1", "", "down2", wildcard=TREE)]
    for other in others:
        pair = [tree, other] if tree_first else [other, tree]
        result = await rig.put(*pair)
        assert (result.created, result.failed) == (1, 1)
        (change,) = result.changes
        assert (change.id, change.error.reason) == (1, "SHARED_TREE_OVERLAP")
        assert dict(change.error.metadata) == {"owner": "local", "iif": pair[0].iif}
        assert "delete one of the two" in change.error.message
        await rig.routes.DeleteRoutes(rs.DeleteRoutesRequest(all=True))
    result = await rig.put(tree, wild("239.1.1.0/24"), good(1), t.Route(group="239.1.1.1", source="10.0.0.1", iif="up"))
    assert (result.created, result.failed) == (4, 0), "wider templates and exact routes go with it"


async def test_set_may_put_a_tree_where_a_template_was(rig: Rig) -> None:
    tree = wild("239.1.1.1", "", "up", "down1", wildcard=TREE)
    moved = wild("239.1.1.1", "", "down2", "down1", wildcard=TREE)
    entry = exact_key(0, pack_address("239.1.1.1"), bytes(4))
    for routes in ([wild("239.1.1.1", "10.0.0.0/8")], [tree], [moved], [wild("239.1.1.1", "10.0.0.0/8")]):
        result = await rig.replace(routes)
        assert (result.created, result.failed) == (1, 0)
        (one,) = await rig.listed()
        assert (one.iif, one.wildcard) == (routes[0].iif, routes[0].wildcard)
        known = rig.kernel.paths(entry)
        expected = {"up": (1, {1: 1, 2: 1}), "down2": (3, {2: 1, 3: 1})}[one.iif] if one.wildcard else None
        assert known == expected


# --- learned ---------------------------------------------------------------------------------------------------------


async def test_learned_entries_are_listed_with_their_template(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.put(wild("239.1.0.0/16", "", "", "down1", "up", "later", cookie="c", monitored=True), owner="alice")
    ((key, shape),) = rig.engine.tables[0, Family.IPV4].templates.items()
    assert shape.action is not None
    vifs = rig.kernel.tables[0, Family.IPV4].vifs
    rig.kernel.add_mfc(SG, shape.action.forwarding(Family.IPV4, vifs.index(1)))
    await tell(rig, SG, Answer.INSTALLED, template_name(key))
    await tell(rig, STRAY)
    sample_of(rig, monkeypatch, SG)
    assert len(await rig.listed()) == 1, "only where they are asked for"
    found = {one.group: one for one in await rig.listed(learned=True, counters=True) if "/" not in one.group}
    assert set(found) == {"239.1.1.1", "239.9.9.9"}
    learned, stop = found["239.1.1.1"], found["239.9.9.9"]
    assert (learned.status.origin, learned.status.owner, learned.cookie) == (t.ORIGIN_LEARNED, "alice", "c")
    assert learned.status.template == t.RouteKey(group="239.1.0.0/16")
    assert (learned.iif, learned.status.state) == ("up", t.ROUTE_STATE_PARTIAL)
    assert list(learned.status.installed_oifs) == ["down1", "up"]
    assert (learned.status.counters.packets, learned.monitored) == (7, True)
    assert learned.status.install_time.ToSeconds() == 2000
    assert (stop.status.origin, stop.status.owner, stop.iif) == (t.ORIGIN_STOP, "kernel", "up")
    assert not stop.oifs
    assert not stop.status.HasField("template")
    of_alice = await rig.listed(learned=True, selector=t.Selector(owner="alice", group="239.1.1.1"))
    assert [one.group for one in of_alice] == ["239.1.1.1"]


@pytest.mark.parametrize("access", [Access.WRITE, Access.ADMIN])
async def test_who_may_write_flushes_his_own_and_who_is_admin_all(tmp_path: Path, access: Access) -> None:
    async with running(Rig(tmp_path, access=access)) as rig:
        keys = [exact_key(0, bytes((239, at, 1, 1)), pack_address("10.0.0.7")) for at in (1, 2)]
        routes = RouteReader().read([wild("239.1.0.0/16")], "alice") + RouteReader().read([wild("239.2.0.0/16")], "local")
        for one in routes:
            await rig.daemon.write(PutRoutes(WriteOptions(one.owner), [one]))
        for key in keys:
            await tell(rig, key, Answer.REFUSED)
        await tell(rig, STRAY)
        assert set(rig.entries()) == {*keys, STRAY}
        answer = await rig.routes.FlushLearned(rs.FlushLearnedRequest(selector=t.Selector(group="239.3.0.0/16")))
        assert answer.removed == 0
        answer = await rig.routes.FlushLearned(rs.FlushLearnedRequest(selector=t.Selector(owner="kernel")))
        assert answer.removed == 1
        assert set(rig.entries()) == set(keys), "stop filters are everybody's"
        answer = await rig.routes.FlushLearned(rs.FlushLearnedRequest())
        assert answer.removed == (2 if access is Access.ADMIN else 1)
        assert set(rig.entries()) == (set() if access is Access.ADMIN else {keys[0]})
        assert len(await rig.listed()) == 2, "templates stay"


async def test_exact_routes_are_never_flushed(rig: Rig) -> None:
    await rig.put(good(1))
    assert (await rig.routes.FlushLearned(rs.FlushLearnedRequest())).removed == 0
    assert len(rig.entries()) == 1


async def test_flush_with_a_bad_selector_is_refused(rig: Rig) -> None:
    found = await refused(rig.routes.FlushLearned(rs.FlushLearnedRequest(selector=t.Selector(group="x"))))
    assert (found.reason, found.metadata["field"]) == ("INVALID_GROUP", "selector.group")
