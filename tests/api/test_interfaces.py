"""ListInterfaces and SetInterface: what there is, pins, thresholds, whose word holds."""

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from tests.api.bench import Bench, Client, good, refused
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-interfaces")]

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def interfaces(client: Client, name: str = "") -> dict[str, t.Interface]:
    """ListInterfaces by name."""
    answer = client.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface=name), timeout=10)
    return {one.name: one for one in answer.interfaces}


def set_interface(client: Client, name: str, owner: str = "", table: int = 0, **values: object) -> t.Interface:
    """SetInterface."""
    request = sv.SetInterfaceRequest(interface=name, table=table, options=rs.WriteOptions(owner=owner), **values)  # type: ignore[arg-type]
    return client.interfaces.SetInterface(request, timeout=10).interface


def test_interfaces_are_listed_as_they_are(bench: Bench) -> None:
    found = interfaces(bench.view)
    assert list(found) == ["down1", "down2", "lo", "up"]
    assert found["up"].ifindex == bench.router.ifindex("up")
    assert (found["up"].up, found["up"].multicast, found["up"].ttl_threshold, found["up"].pinned) == (True, True, 1, False)
    assert not found["lo"].multicast
    assert {one.routes for one in found.values()} == {0}


@pytest.mark.parametrize("name,names", [("up", ["up"]), ("d*", ["down1", "down2"]), ("?o", ["lo"]), ("absent", []), ("x*", [])])
def test_a_name_or_a_glob_narrows_the_list(bench: Bench, name: str, names: list[str]) -> None:
    assert list(interfaces(bench.view, name)) == names


@pytest.mark.parametrize("name", ["i" * 16, "a/b", "up\0", "d*\0", "d*" * 40])
def test_a_name_that_none_can_have_is_refused(bench: Bench, name: str) -> None:
    found = refused(lambda: interfaces(bench.view, name))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_INTERFACE", "interface")


def test_vifs_come_and_go_with_the_routes(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "down1"), good(2, 4, "d*"), good(1, 6, "down2"))
    found = interfaces(bench.view)
    assert {name: [one.ipv6 for one in interface.vifs] for name, interface in found.items()} == {
        "up": [False, True],
        "down1": [False],
        "down2": [False, True],
        "lo": [],
    }
    assert {name: interface.routes for name, interface in found.items()} == {"up": 3, "down1": 2, "down2": 2, "lo": 0}
    assert bench.view.status().limits.vifs_used == 3
    bench.clean()
    wait_until(lambda: not any(interface.vifs for interface in interfaces(bench.view).values()))


def test_vifs_count(bench: Bench) -> None:
    source, receiver = bench.star.source, bench.star.receivers[0].receiver("239.88.0.1")
    bench.admin.put(t.Route(group="239.88.0.1", source=source.ipv4, iif="up", oifs=[t.Oif(interface="down1")]))
    before = interfaces(bench.view)
    sender = source.sender("239.88.0.1")
    sender.send(10)
    receiver.wait(sender)
    after = interfaces(bench.view)
    assert after["up"].vifs[0].in_packets - before["up"].vifs[0].in_packets == 10
    assert after["down1"].vifs[0].out_packets - before["down1"].vifs[0].out_packets == 10
    assert after["down1"].vifs[0].out_bytes - before["down1"].vifs[0].out_bytes >= 640
    receiver.close()
    sender.close()


def test_a_pin_keeps_vifs_without_routes(own_bench: Bench) -> None:
    admin = own_bench.admin
    answer = set_interface(admin, "down1", pinned=True)
    assert answer.pinned
    wait_until(lambda: len(interfaces(admin)["down1"].vifs) == 2)
    assert [one.ipv6 for one in interfaces(admin)["down1"].vifs] == [False, True]
    assert not set_interface(admin, "down1", pinned=False).pinned
    wait_until(lambda: not interfaces(admin)["down1"].vifs)


def test_a_pin_is_of_one_table(own_bench: Bench) -> None:
    admin = own_bench.admin
    set_interface(admin, "down1", pinned=True, table=99)
    wait_until(lambda: [one.table for one in interfaces(admin)["down1"].vifs] == [99, 99])
    set_interface(admin, "down1", pinned=True)
    wait_until(lambda: [one.table for one in interfaces(admin)["down1"].vifs] == [0, 0, 99, 99])
    set_interface(admin, "down1", pinned=False, table=99)
    wait_until(lambda: [one.table for one in interfaces(admin)["down1"].vifs] == [0, 0])


def test_a_threshold_programs_the_routes_again(own_bench: Bench) -> None:
    """Packets with a hop limit of 16 pass a threshold of 1, not one of 20; one that a route names itself holds."""
    bench, admin = own_bench, own_bench.admin
    source = bench.star.source
    by_default, by_name = "239.88.0.2", "239.88.0.3"
    admin.put(
        t.Route(group=by_default, source=source.ipv4, iif="up", oifs=[t.Oif(interface="down1")]),
        t.Route(group=by_name, source=source.ipv4, iif="up", oifs=[t.Oif(interface="down1", ttl_threshold=2)]),
    )
    receivers = {group: bench.star.receivers[0].receiver(group) for group in (by_default, by_name)}
    assert set_interface(admin, "down1", ttl_threshold=20).ttl_threshold == 20
    stopped, passing = source.sender(by_default), source.sender(by_name)
    stopped.send(5)
    passing.send(5)
    receivers[by_name].wait(passing)
    assert receivers[by_default].count(stopped) == 0
    set_interface(admin, "down1", ttl_threshold=1)
    again = source.sender(by_default)
    again.send(5)
    receivers[by_default].wait(again)


@pytest.mark.parametrize("threshold", [0, 255, 256, 2**32 - 1])
def test_a_threshold_is_1_to_254(bench: Bench, threshold: int) -> None:
    found = refused(lambda: set_interface(bench.admin, "down1", ttl_threshold=threshold))
    assert (found.code, found.reason) == (INVALID, "INVALID_TTL")
    assert found.metadata == {"field": "ttl_threshold", "value": str(threshold)}
    assert interfaces(bench.view)["down1"].ttl_threshold == 1


@pytest.mark.parametrize("name,words", [("", "is empty"), ("d*", "a pattern"), ("i" * 16, "15 bytes"), ("up\0", "characters")])
def test_a_setting_is_of_one_interface(bench: Bench, name: str, words: str) -> None:
    found = refused(lambda: set_interface(bench.admin, name, pinned=True))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_INTERFACE", "interface")
    assert words in found.message


def test_a_table_that_cannot_be_is_refused(bench: Bench) -> None:
    found = refused(lambda: set_interface(bench.admin, "down1", table=10**9, pinned=True))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_VALUE", "table")


def test_router_discovery_is_on_where_somebody_asks(own_bench: Bench) -> None:
    admin, write = own_bench.admin, own_bench.write
    assert not interfaces(admin)["down1"].router_discovery
    assert set_interface(write, "down1", router_discovery=True).router_discovery
    assert interfaces(admin)["down1"].router_discovery
    assert not set_interface(admin, "down1", router_discovery=False).router_discovery
    assert set_interface(write, "down1", router_discovery=True).router_discovery, "the latest word holds"
    assert set_interface(admin, "later0", router_discovery=True).router_discovery
    assert set_interface(admin, "later0", ttl_threshold=2).router_discovery, "nothing was said of it"
    assert "router-discovery" in admin.status().features


def test_an_interface_that_is_not_there_yet_can_be_set(own_bench: Bench) -> None:
    admin = own_bench.admin
    answer = set_interface(admin, "later0", ttl_threshold=7, pinned=True)
    assert (answer.ifindex, answer.up, answer.ttl_threshold, answer.pinned) == (0, False, 7, True)
    assert interfaces(admin)["later0"].ttl_threshold == 7
    own_bench.router.ip("link add later0 type veth peer name later1", "link set later0 up", "link set later1 up")
    wait_until(lambda: len(interfaces(admin)["later0"].vifs) == 2 and interfaces(admin)["later0"].up)


def test_settings_are_kept_by_owner_and_the_latest_word_holds(own_bench: Bench) -> None:
    admin, write = own_bench.admin, own_bench.write
    set_interface(admin, "down1", ttl_threshold=10, pinned=True)
    set_interface(write, "down1", ttl_threshold=20)
    assert interfaces(admin)["down1"].ttl_threshold == 20
    assert interfaces(admin)["down1"].pinned, "alice has said nothing of it"
    set_interface(admin, "down1", ttl_threshold=11)
    assert interfaces(admin)["down1"].ttl_threshold == 11
    revision = admin.status().revision
    set_interface(admin, "down1", ttl_threshold=11)
    set_interface(admin, "down1")
    assert admin.status().revision == revision, "the same again changes nothing"


def test_settings_survive_a_killed_server(own_bench: Bench) -> None:
    admin = own_bench.admin
    set_interface(admin, "down1", ttl_threshold=10, pinned=True)
    instance = admin.status().instance_id
    own_bench.daemon.kill_server()

    def back() -> bool:
        try:
            return admin.status().instance_id != instance
        except grpc.RpcError:
            return False

    wait_until(back, 20)
    own_bench.daemon.wait_ready()
    found = interfaces(admin)["down1"]
    assert (found.ttl_threshold, found.pinned, len(found.vifs)) == (10, True, 2)
