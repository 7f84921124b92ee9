"""mcastd.telemetry.silence: when a flow counts as silent, and what the log says."""

import logging

import pytest

from mcastd.model.address import Family
from mcastd.model.route import Oif, Paths, Route
from mcastd.telemetry.silence import SilenceWatch
from tests.netns.routed import key_of

KEYS = [key_of(family, n) for family in Family for n in (1, 2)]
OTHER = key_of(Family.IPV4, 9)


def expected(key: bytes) -> Route:
    return Route(key, Paths("up", (Oif("down"),)), "alice", monitored=True)


class Looks:
    """A watch, and what the kernel has counted."""

    def __init__(self, after: float = 10.0) -> None:
        self.watch = SilenceWatch(after)
        self.used: dict[bytes, tuple[int, float]] = {}

    def look(self, now: float, *routes: Route, entries: list[bytes] | None = None) -> list[bytes]:
        """Keys of those that are silent."""
        found = ((route, [route.key] if entries is None else entries) for route in routes)
        for _ in self.watch.look(found, self.used.get, now):
            pass
        return [key for key, one in self.watch.expected.items() if one.silent]


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.mark.parametrize("key", KEYS)
def test_a_flow_falls_silent_and_comes_back(looks: Looks, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    route = expected(key)
    looks.used[key] = 5, 100.0
    assert looks.look(100, route) == []
    assert looks.look(110, route) == []
    assert looks.look(110.1, route) == [key]
    assert looks.watch.silent == 1
    looks.used[key] = 6, 120.0
    assert looks.look(120.5, route) == []
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("WARNING", "a flow that is expected is silent"),
        ("INFO", "a flow that was silent is back"),
    ]
    assert (caplog.records[0].owner, caplog.records[0].seconds) == ("alice", 10)  # type: ignore[attr-defined]


def test_one_that_never_had_a_packet_has_its_time_too(looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    route = expected(KEYS[0])
    assert looks.look(50, route) == []
    assert looks.look(60.5, route) == [route.key]
    assert caplog.records[0].seconds == "never used"  # type: ignore[attr-defined]
    assert looks.watch.expected[route.key].last_used == 0


def test_an_entry_that_is_programmed_again_is_not_heard(looks: Looks) -> None:
    """The kernel's time of last use is new then; its count of packets is not."""
    route = expected(KEYS[0])
    looks.used[route.key] = 5, 100.0
    looks.look(100, route)
    looks.used[route.key] = 5, 111.0
    assert looks.look(111, route) == [route.key]
    assert looks.watch.expected[route.key].last_used == 100.0


def test_counters_that_begin_anew_are_packets(looks: Looks) -> None:
    route = expected(KEYS[0])
    looks.used[route.key] = 500, 100.0
    looks.look(100, route)
    looks.used[route.key] = 3, 112.0
    assert looks.look(112, route) == []


def test_any_entry_of_a_template_will_do(looks: Looks) -> None:
    route = expected(KEYS[0])
    entries = [KEYS[0], OTHER]
    looks.used = dict.fromkeys(entries, (1, 100.0))
    looks.look(100, route, entries=entries)
    looks.used[OTHER] = 2, 111.0
    assert looks.look(111, route, entries=entries) == []
    looks.used = {}
    assert looks.look(130, route, entries=[]) == [route.key]


def test_who_is_no_longer_expected_is_forgotten(looks: Looks) -> None:
    looks.look(0, expected(KEYS[0]))
    assert looks.look(100) == []
    assert looks.watch.expected == {}
    assert looks.look(200, expected(KEYS[0])) == []  # its time begins anew


def test_many_at_once_are_few_lines(looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    routes = [expected(key_of(Family.IPV4, n)) for n in range(500)]
    looks.look(0, *routes)
    assert len(looks.look(100, *routes)) == 500
    assert len(caplog.records) == 11
    assert caplog.records[-1].others == 490  # type: ignore[attr-defined]
