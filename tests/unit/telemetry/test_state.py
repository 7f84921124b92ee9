"""mcastd.telemetry.state: gauges that agree with the engine."""

import errno

from prometheus_client import Metric

from mcastd.model.address import Family
from mcastd.model.event import LinkChanged
from mcastd.model.interface import Link
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.telemetry import state
from mcastd.telemetry.state import build, engine_families, learned_count
from tests.fakerouter import route, sg, template
from tests.unit.telemetry.counted import Scraped


def collected(scraped: Scraped) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels, sorted by label."""
    families: list[Metric] = [one for one in engine_families(scraped.router.engine, scraped.counted) if one is not None]
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_build_is_told() -> None:
    (sample,) = build("an-instance").samples
    assert sample.labels["instance_id"] == "an-instance"
    assert set(sample.labels) == {"version", "python", "kernel", "instance_id"}


def test_routes_are_counted_by_state() -> None:
    scraped = Scraped("up", "down")
    router = scraped.router
    router.kernel.refuse("add_mfc", errno.ENOMEM, 1, lambda key: key == sg(5))
    routes = [
        route(sg(1), "up", "down"),
        route(sg(2), "up", "down"),
        route(sg(3), "up", "down", "absent"),
        route(sg(4), "absent", "down"),
        route(sg(5), "up", "down"),
        route(sg(1, Family.IPV6), "up", "down"),
        template("239.1.1.0/24", "", "up", "down"),
        template("239.1.2.1", "", "up", "down", shared_tree=True),
    ]
    router.write(PutRoutes(WriteOptions("alice"), routes))
    router.settle()
    samples = collected(scraped)
    states = ("programmed", "partial", "pending", "template", "failed")
    assert {name: samples["mcastd_routes", "ipv4", name, "0"] for name in states} == {
        "programmed": 3,
        "partial": 1,
        "pending": 1,
        "template": 1,
        "failed": 1,
    }
    assert samples["mcastd_routes", "ipv6", "programmed", "0"] == 1
    assert samples["mcastd_route_templates", "ipv4", "0"] == 2
    assert samples["mcastd_route_templates", "ipv6", "0"] == 0
    assert samples["mcastd_vifs", "ipv4", "0"] == 2
    assert samples["mcastd_vifs_limit", "ipv6", "0"] == 32


def test_what_vifs_carry() -> None:
    scraped = Scraped("up", "down")
    scraped.router.write(PutRoutes(WriteOptions("alice"), [route(sg(1), "up", "down")]))
    scraped.router.settle()
    samples = collected(scraped)
    numbers = {name: number for number, name in scraped.router.vifs().items()}
    for name in ("up", "down"):
        assert samples["mcastd_interface_receive_packets_total", "ipv4", name, "0"] == numbers[name]
        assert samples["mcastd_interface_receive_bytes_total", "ipv4", name, "0"] == 30 + numbers[name]
        assert samples["mcastd_interface_transmit_packets_total", "ipv4", name, "0"] == 2
        assert samples["mcastd_interface_transmit_bytes_total", "ipv4", name, "0"] == 4


def test_interfaces_by_state() -> None:
    scraped = Scraped("up", "down")
    for number, link in enumerate([Link(0, "off", up=False, multicast=True), Link(0, "tun", up=True, multicast=False)], 50):
        scraped.router.engine.links(LinkChanged(Link(number, link.name, link.up, link.multicast)))
    samples = collected(scraped)
    assert [samples["mcastd_interfaces", name] for name in ("up", "down", "no_multicast")] == [2, 1, 1]


def test_what_templates_have_made() -> None:
    scraped = Scraped("up", "down")
    router = scraped.router
    router.write(PutRoutes(WriteOptions("alice"), [template("239.1.0.0/16", "", "up", "down")]))
    router.settle()
    router.packet(sg(7), "up")
    router.settle()
    assert learned_count(router.engine.tables[0, Family.IPV4]) == 1


def test_others_run_in_between() -> None:
    scraped = Scraped("up", "down")
    routes = [route(sg(n), "up", f"down{n}") for n in range(50)]
    scraped.router.write(PutRoutes(WriteOptions("alice"), list(routes)))
    scraped.router.settle()
    before = state._SHAPES_AT_ONCE
    try:
        state._SHAPES_AT_ONCE = 10
        assert sum(one is None for one in engine_families(scraped.router.engine, scraped.counted)) >= 5
    finally:
        state._SHAPES_AT_ONCE = before
