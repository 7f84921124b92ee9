"""mcastd.api.samples: of the entries that are watched those whose counters have moved, at most as often as was asked for."""

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import samples as samples_module
from mcastd.api.samples import INTERVAL, Sampled, Sampler
from mcastd.core.templates import tree_key
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Counters
from mcastd.model.write import PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg, template
from tests.fakewatch import FakeDaemon

ALICE = WriteOptions("alice")


@pytest.fixture
def daemon() -> FakeDaemon:
    """A daemon with three routes, a template and a tree, and what those have made."""
    router = Router("eth0", "eth1")
    router.write(
        PutRoutes(
            ALICE,
            [
                *(route(sg(number), "eth0", "eth1", cookie=str(number)) for number in range(3)),
                template("239.1.1.0/24", "", "eth0", "eth1"),
                template("239.1.2.1", "", "eth0", "eth1", shared_tree=True),
            ],
        )
    )
    router.write(SetInterface(ALICE, "eth1", True, None, 0))
    router.settle()
    for number in (0x101, 0x301):
        router.packet(sg(number), "eth0")
    router.settle()
    return FakeDaemon(router.engine)


def counted(**packets: int) -> dict[bytes, Counters]:
    """Counters of (S,G) by number ("n1")."""
    return {sg(int(name[1:])): Counters(number, 100 * number, 0, 0.0) for name, number in packets.items()}


async def sample(sampler: Sampler) -> list[Sampled]:
    """One sample, all parts together."""
    return [one for part in await sampler.sample() for one in part]


async def cookies(sampler: Sampler) -> list[str]:
    """Cookies of the routes whose counters have moved."""
    return [one.cookie for _, one, _ in await sample(sampler)]


async def test_what_has_moved_is_told(daemon: FakeDaemon) -> None:
    sampler = Sampler(daemon.as_port(), sv.WatchRequest())
    assert sampler.due()
    daemon.counted = counted(n0=0, n1=5, n2=7)
    assert await cookies(sampler) == ["1", "2"], "who has counted nothing is no news"
    assert not sampler.due()
    assert await cookies(sampler) == []
    daemon.counted = counted(n0=1, n1=5, n2=8)
    assert await cookies(sampler) == ["0", "2"]
    daemon.counted = counted(n2=1)
    assert await cookies(sampler) == ["2"], "written anew: it has begun again"


async def test_what_came_in_by_the_wrong_interface_is_news(daemon: FakeDaemon) -> None:
    sampler = Sampler(daemon.as_port(), sv.WatchRequest())
    daemon.counted = {sg(1): Counters(0, 0, 3, 0.0)}
    assert await cookies(sampler) == ["1"]
    daemon.counted = {sg(1): Counters(0, 0, 3, 99.0)}
    assert await cookies(sampler) == []


async def test_learned_entries_and_trees_have_routes(daemon: FakeDaemon) -> None:
    (tree,) = daemon.engine.tables[0, Family.IPV4].trees.values()
    key = tree_key(tree.route.key)
    daemon.counted = {
        **counted(n257=2, n769=3, n999=9),
        key: Counters(4, 0, 0, 0.0),
        b"\0\0\0\x09" + bytes(8): Counters(1, 1, 0, 0.0),
    }
    found = {key: one for key, one, _ in await sample(Sampler(daemon.as_port(), sv.WatchRequest()))}
    assert set(found) == {sg(257), sg(769), key}, "others are nobody's"
    assert found[sg(257)].owner == "alice"
    assert found[sg(769)].owner == KERNEL_OWNER, "a stop filter"
    assert found[key] is tree.route


async def test_a_learned_entry_whose_interface_has_gone_has_none(daemon: FakeDaemon) -> None:
    daemon.counted = counted(n257=2)
    del daemon.engine.world.by_index[1]
    assert await sample(Sampler(daemon.as_port(), sv.WatchRequest())) == []


async def test_a_selector(daemon: FakeDaemon) -> None:
    daemon.counted = counted(n0=1, n1=1, n257=1)
    chosen = Sampler(daemon.as_port(), sv.WatchRequest(selector=t.Selector(group="239.1.0.0/31", cookie="1")))
    assert await cookies(chosen) == ["1"]


async def test_many_come_in_parts(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_AT_ONCE", 2)
    daemon.counted = counted(n0=1, n1=1, n2=1)
    parts = list(await Sampler(daemon.as_port(), sv.WatchRequest()).sample())
    assert [len(part) for part in parts] == [2, 1]
    daemon.counted = {sg(number): Counters(1, 1, 0, 0.0) for number in range(1000, 1100)}
    parts = list(await Sampler(daemon.as_port(), sv.WatchRequest()).sample())
    assert parts == [[], []], "others have their turn while nothing is found"


async def test_the_next_sample_is_due_an_interval_after_this_one(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    request = sv.WatchRequest()
    request.sample_interval.FromMilliseconds(1500)
    sampler = Sampler(daemon.as_port(), request)
    now[0] = 110.0
    assert sampler.due()
    await sampler.sample()
    assert sampler.next_at == 111.5, "who is late is not given several"
    assert not sampler.due()
    now[0] = 111.5
    assert sampler.due()


@pytest.mark.parametrize("seconds, nanos", [(0, 999_999_999), (86_400, 1), (-1, 0), (0, -1), (0, 0), (2**62, 0), (5, 2**30)])
def test_intervals_out_of_range(daemon: FakeDaemon, seconds: int, nanos: int) -> None:
    request = sv.WatchRequest()
    request.sample_interval.seconds, request.sample_interval.nanos = seconds, nanos
    with pytest.raises(McastdError) as caught:
        Sampler(daemon.as_port(), request)
    assert caught.value.reason is Reason.INVALID_VALUE
    assert caught.value.problem.metadata["field"] == "sample_interval"


def test_the_default() -> None:
    assert samples_module._interval(sv.WatchRequest()) == INTERVAL == 10
