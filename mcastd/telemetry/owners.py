"""Owners, and what their sessions leave behind, as gauges made anew at each scrape."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from mcastd.core.desired import Desired
from mcastd.model.record import OwnerRecord

_Value = Callable[[OwnerRecord, Desired], float]

_OF_OWNERS: tuple[tuple[str, str, _Value], ...] = (
    ("routes", "Routes of an owner.", lambda owner, desired: desired.entries.get(owner.name, 0)),
    (
        "stale_routes",
        "Those that its sessions have written and that it has yet to say again: it is away, or in a replay.",
        lambda owner, desired: desired.stale_entries(owner.name),
    ),
    ("connected", "1 while a session of an owner is up (ProgramRoutes), else 0.", lambda owner, _: owner.session > 0),
    (
        "hold_until_timestamp_seconds",
        "When the hold time of an owner that is away ends, or has ended, seconds since the epoch; 0 = none runs.",
        lambda owner, _: 0.0 if owner.session else owner.hold_until,
    ),
)


def owner_families(desired: Desired) -> Iterator[Metric]:
    """How many sessions are up, and each owner's routes, stale ones among them, and hold time."""
    owners = sorted(desired.owners.values(), key=lambda owner: owner.name)
    up = sum(owner.session > 0 for owner in owners)
    yield GaugeMetricFamily("mcastd_sessions", "Sessions of controllers that are up (ProgramRoutes).", value=up)
    for name, text, value in _OF_OWNERS:
        family = GaugeMetricFamily(f"mcastd_owner_{name}", text, labels=["owner_id"])
        for owner in owners:
            family.add_metric([owner.name], value(owner, desired))
        yield family
