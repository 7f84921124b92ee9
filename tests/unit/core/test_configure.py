"""mcastd.core.configure: owner "config" has just what a configuration says, and everybody else what he had."""

import pytest

from mcastd.core.prepare import prepare
from mcastd.model.address import Family
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.owner import CONFIG_OWNER
from mcastd.model.record import InterfaceSettings, Pin
from mcastd.model.route import Route
from mcastd.model.write import Configure, Outcome, PutJoins, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, drain, route, sg

CONFIG, ALICE = WriteOptions(CONFIG_OWNER), WriteOptions("alice")


@pytest.fixture
def router() -> Router:
    return Router("eth0", "eth1", "eth2")


def join(number: int, owner: str = CONFIG_OWNER, cookie: str = "") -> JoinRecord:
    return JoinRecord(JoinKey(owner, "eth0", bytes((239, 9, 9, number)), 32, b"", 0), cookie)


def said(interface: str, threshold: int | None = None, *pins: Pin, discovery: bool | None = None) -> InterfaceSettings:
    return InterfaceSettings(interface, CONFIG_OWNER, threshold, 0, pins, discovery)


def wanted(
    *routes: Route, joins: tuple[JoinRecord, ...] = (), settings: tuple[InterfaceSettings, ...] = (), dry: bool = False
) -> Configure:
    options = WriteOptions(CONFIG_OWNER, validate_only=dry)
    return Configure(
        options, {one.key: one for one in routes}, {one.key: one for one in joins}, {one.interface: one for one in settings}
    )


def one(number: int, *oifs: str, owner: str = CONFIG_OWNER) -> Route:
    return route(sg(number, Family.IPV4), "eth0", *oifs, owner=owner)


def configure(router: Router, write: Configure) -> Outcome:
    return router.write(write)[0]


def counts(outcome: Outcome) -> tuple[int, int, int, int, int]:
    return outcome.created, outcome.updated, outcome.deleted, outcome.unchanged, outcome.refused


def test_routes_are_replaced_and_only_those_of_the_owner(router: Router) -> None:
    router.write(PutRoutes(ALICE, [one(9, "eth1", owner="alice")]))
    assert counts(configure(router, wanted(one(1, "eth1"), one(2, "eth1")))) == (2, 0, 0, 0, 0)
    assert counts(configure(router, wanted(one(1, "eth1"), one(3, "eth1")))) == (1, 0, 1, 1, 0)
    assert counts(configure(router, wanted(one(1, "eth2")))) == (0, 1, 1, 0, 0)
    assert counts(configure(router, wanted())) == (0, 0, 1, 0, 0)
    assert list(router.engine.desired.routes) == [sg(9, Family.IPV4)]


def test_what_another_owner_has_is_refused_and_the_rest_done(router: Router) -> None:
    router.write(PutRoutes(ALICE, [one(1, "eth1", owner="alice")]))
    outcome = configure(router, wanted(one(1, "eth2"), one(2, "eth1"), joins=(join(1),)))
    assert counts(outcome) == (1, 0, 0, 0, 1)
    assert router.engine.desired.routes[sg(1, Family.IPV4)].owner == "alice"
    assert list(router.engine.desired.joins) == [join(1).key]


def test_the_same_again_is_no_write(router: Router) -> None:
    write = wanted(one(1, "eth1"), joins=(join(1),), settings=(said("eth1", 3, Pin(0, True, 0), discovery=True),))
    configure(router, write)
    revision = router.engine.revision
    outcome = configure(router, wanted(one(1, "eth1"), joins=(join(1),), settings=tuple(write.settings.values())))
    assert not outcome.intent
    assert (outcome.interfaces, counts(outcome)) == (0, (0, 0, 0, 1, 0))
    assert router.engine.desired.owners[CONFIG_OWNER].revision <= revision


def test_joins_are_replaced_and_counted_apart(router: Router) -> None:
    router.write(PutJoins(ALICE, [join(7, "alice")]))
    outcome = configure(router, wanted(joins=(join(1), join(2))))
    assert (counts(outcome), len(outcome.joins)) == ((0, 0, 0, 0, 0), 2)
    outcome = configure(router, wanted(joins=(join(2, cookie="new"), join(3))))
    changed = [(change.before is not None, change.after is not None) for change in outcome.joins]
    assert sorted(changed) == [(False, True), (True, False), (True, True)]
    assert counts(outcome) == (0, 0, 0, 0, 0)
    assert sorted(key.group[3] for key in router.engine.desired.joins) == [2, 3, 7]


def test_settings_come_change_and_go(router: Router) -> None:
    engine = router.engine
    outcome = configure(router, wanted(settings=(said("eth1", 3, Pin(0, True, 0)), said("eth2", discovery=True))))
    assert outcome.interfaces == 2
    holds = engine.desired.effective_settings("eth1")
    assert (holds.ttl_threshold, holds.pinned_tables) == (3, frozenset({0}))
    first = engine.desired.settings["eth1", CONFIG_OWNER]
    assert configure(router, wanted(settings=(said("eth1", 3, Pin(5, True, 0)), said("eth2", discovery=True)))).interfaces == 1
    second = engine.desired.settings["eth1", CONFIG_OWNER]
    assert second.ttl_revision == first.ttl_revision
    assert second.pins[0].revision > first.pins[0].revision
    assert engine.desired.effective_settings("eth1").pinned_tables == {5}
    assert configure(router, wanted()).interfaces == 2
    assert engine.desired.settings == {}
    assert engine.desired.effective_settings("eth1").ttl_threshold is None


def test_settings_yield_to_anybody_else(router: Router) -> None:
    router.write(SetInterface(ALICE, "eth1", pinned=False, ttl_threshold=9))
    configure(router, wanted(settings=(said("eth1", 3, Pin(0, True, 0), discovery=True),)))
    holds = router.engine.desired.effective_settings("eth1")
    assert (holds.ttl_threshold, holds.pinned_tables, holds.router_discovery) == (9, frozenset(), True)


def test_a_dry_run_says_the_same_and_does_nothing(router: Router) -> None:
    configure(router, wanted(one(1, "eth1"), joins=(join(1),)))
    draft = router.engine.draft()
    write = wanted(one(2, "eth1"), joins=(join(2),), settings=(said("eth1", 3),), dry=True)
    outcome: Outcome = drain(prepare(draft, write, 100))
    assert (counts(outcome), outcome.interfaces, len(outcome.joins)) == ((1, 0, 1, 0, 0), 1, 2)
    assert draft.intents == []
    assert list(router.engine.desired.routes) == [sg(1, Family.IPV4)]
