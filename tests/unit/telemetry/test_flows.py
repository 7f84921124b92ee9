"""mcastd.telemetry.flows: which flows are told of, and what is said of those that are expected."""

from dataclasses import replace

import pytest

from mcastd.model.address import Family, address_text, exact_key, pack_address, split_key
from mcastd.model.event import LinkChanged
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.telemetry.flows import FlowPage
from tests.fakerouter import Router, route, sg, template
from tests.unit.telemetry.counted import Count, Scraped

OPTIONS = WriteOptions("alice")


def names(page: FlowPage) -> set[str]:
    """Groups and sources of what is told of."""
    return {row.labels.split('source="')[1].split('",iif')[0].replace('",group="', " ") for row in page.rows}


def put(router: Router, *keys: bytes, monitored: bool = False) -> None:
    routes = [route(key, "up", "down", cookie="a cookie") for key in keys]
    for one in routes:
        one.monitored = monitored
    router.write(PutRoutes(OPTIONS, list(routes)))
    router.settle()


@pytest.fixture
def scraped() -> Scraped:
    return Scraped("up", "down", top=3)


@pytest.mark.parametrize("family", Family)
async def test_few_flows_are_all_told_of(scraped: Scraped, family: Family) -> None:
    keys = [sg(n, family) for n in (1, 2, 3)]
    put(scraped.router, *keys)
    scraped.counted.counts = {key: Count(7, 700, 2, 5.0) for key in keys}
    page = await scraped.flows.page(scraped.counted.take())
    assert (page.total, page.exported, len(page.rows)) == (3, 3, 3)
    row = next(one for one in page.rows if one.labels.endswith(f'{sg_text(keys[0])},iif="up"}}'))
    assert row.labels.startswith(f'{{table="0",family="ipv{family.value}",')
    assert row[1:] == ('set="alice",name="a cookie"', 7, 700, 2, scraped.counted.now - 5.0, False, True)


def sg_text(key: bytes) -> str:
    _, group, source = split_key(key)
    return f'source="{address_text(source)}",group="{address_text(group)}"'


async def test_of_many_the_fastest(scraped: Scraped) -> None:
    keys = [sg(n) for n in range(20)]
    put(scraped.router, *keys)
    scraped.counted.counts = {key: Count(1, 1000 - n) for n, key in enumerate(keys)}
    scraped.counted.take()
    for n, key in enumerate(keys):
        scraped.counted.counts[key].octets += 10 * n
    page = await scraped.flows.page(scraped.counted.take())
    assert (page.total, page.exported) == (20, 3)
    assert names(page) == {f"10.0.0.1 239.1.0.{n}" for n in (17, 18, 19)}


async def test_the_order_of_dumps_does_not_matter(scraped: Scraped) -> None:
    keys = [sg(n) for n in range(20)]
    put(scraped.router, *keys)
    scraped.counted.counts = {key: Count(1, 1000) for key in keys}
    scraped.counted.take()
    scraped.counted.counts = {key: Count(1, 1000 + 10 * n) for n, key in reversed(list(enumerate(keys)))}
    scraped.counted.counts[keys[19]].octets = 4  # it went and came back: its counter began anew
    assert names(await scraped.flows.page(scraped.counted.take())) == {f"10.0.0.1 239.1.0.{n}" for n in (16, 17, 18)}


async def test_one_sample_is_looked_at_once(scraped: Scraped) -> None:
    sample = scraped.counted.take()
    assert await scraped.flows.page(sample) is await scraped.flows.page(sample)


@pytest.mark.parametrize("family", Family)
async def test_expected_ones_are_always_told_of(scraped: Scraped, family: Family) -> None:
    put(scraped.router, *[sg(n) for n in range(10)])
    put(scraped.router, sg(50, family), sg(51, family), monitored=True)
    scraped.counted.counts = {sg(n): Count(5, 500) for n in range(10)} | {sg(50, family): Count()}
    page = await scraped.flows.page(scraped.counted.take())
    expected = [row for row in page.rows if row.expected]
    assert len(expected) == 2
    assert {(row.packets, row.last_used) for row in expected} == {(0, 0.0)}
    assert all('iif="up"' in row.labels for row in expected)
    assert len(page.rows) == 5


async def test_when_it_was_heard_last_does_not_move_when_the_entry_is_programmed_anew(scraped: Scraped) -> None:
    put(scraped.router, sg(1), monitored=True)
    scraped.counted.counts[sg(1)] = Count(5, 500, idle=2.0)
    (row,) = (await scraped.flows.page(scraped.counted.take())).rows
    heard = row.last_used
    assert heard == scraped.counted.now - 2.0
    scraped.counted.counts[sg(1)].idle = 0.5
    (row,) = (await scraped.flows.page(scraped.counted.take(11))).rows
    assert row.last_used == heard
    assert scraped.silence.silent == 1


async def test_a_template_that_is_expected_tells_of_its_entries(scraped: Scraped) -> None:
    one = template("239.1.0.0/16", "", "up", "down")
    one.monitored = True
    scraped.router.write(PutRoutes(OPTIONS, [one]))
    scraped.router.settle()
    learn(scraped.router, sg(7))
    scraped.counted.counts = {sg(7): Count(9, 900)} | {sg(1000 + n): Count(1, 10_000, foreign=True) for n in range(5)}
    page = await scraped.flows.page(scraped.counted.take())
    (expected,) = [row for row in page.rows if row.expected]
    assert 'source="*",group="239.1.0.0/16",iif="up"' in expected.labels
    assert (expected.counted, expected.last_used) == (False, scraped.counted.now - 1.0)
    assert "10.0.0.1 239.1.0.7" in names(page)
    assert scraped.silence.silent == 0


async def test_a_shared_tree_is_one_flow(scraped: Scraped) -> None:
    one = template("239.1.0.5", "", "up", "down", shared_tree=True)
    one.monitored = True
    scraped.router.write(PutRoutes(OPTIONS, [one]))
    scraped.router.settle()
    key = exact_key(0, pack_address("239.1.0.5"), bytes(4))
    scraped.counted.counts = {key: Count(9, 900)}
    (row,) = (await scraped.flows.page(scraped.counted.take())).rows
    assert 'source="*",group="239.1.0.5",iif="up"' in row.labels
    assert (row.packets, row.expected, row.counted) == (9, True, True)


def learn(router: Router, key: bytes) -> None:
    """A packet came, and the keeper has answered."""
    router.packet(key, "up")
    router.settle()


async def test_stop_filters_and_waiting_packets_are_no_flows(scraped: Scraped) -> None:
    put(scraped.router, sg(1))
    learn(scraped.router, sg(2))  # nobody wants it
    assert sg(2) in scraped.router.engine.tables[0, Family.IPV4].learned
    scraped.counted.counts = {sg(1): Count(1, 1), sg(2): Count(5, 5000), sg(3): Count(unresolved=True)}
    sample = scraped.counted.take()
    page = await scraped.flows.page(sample)
    assert (page.total, names(page)) == (1, {"10.0.0.1 239.1.0.1"})


async def test_somebody_elses_flow_has_no_owner(scraped: Scraped) -> None:
    scraped.counted.counts = {sg(1): Count(1, 1, foreign=True)}
    (row,) = (await scraped.flows.page(scraped.counted.take())).rows
    assert row.origin == 'set="kernel",name=""'


async def test_a_renamed_interface_is_another_label(scraped: Scraped) -> None:
    put(scraped.router, sg(1))
    scraped.counted.counts = {sg(1): Count(1, 1)}
    await scraped.flows.page(scraped.counted.take())
    link = scraped.router.engine.world.by_name["up"]
    scraped.router.engine.links(LinkChanged(replace(link, name='u"p')))
    (row,) = (await scraped.flows.page(scraped.counted.take())).rows
    assert row.labels.endswith(r'iif="u\"p"}')


async def test_where_the_interface_is_gone_the_route_names_it(scraped: Scraped) -> None:
    put(scraped.router, sg(1))
    scraped.counted.counts = {sg(1): Count(1, 1, ifindex=0)}
    (row,) = (await scraped.flows.page(scraped.counted.take())).rows
    assert 'iif="up"' in row.labels


async def test_one_flow_more_than_fits_does_not_hide_the_idle_ones(scraped: Scraped) -> None:
    """Else their series would come and go whenever the number of flows crosses K."""
    limit = scraped.flows.limit
    scraped.counted.counts = {sg(n): Count(1, 100, foreign=True) for n in range(limit)}
    before = names(await scraped.flows.page(scraped.counted.take()))
    assert len(before) == limit
    scraped.counted.counts[sg(limit)] = Count(1, 100, foreign=True)
    assert before <= names(await scraped.flows.page(scraped.counted.take()))
