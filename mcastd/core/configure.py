"""Prepare what a configuration says of joins and interfaces: all that its owner has said before and does not say now goes.

Routes go the way of ReplaceRoutes (core/prepare.py).
"""

from collections.abc import Generator
from dataclasses import replace

from mcastd.core.desired import Draft
from mcastd.core.prepare_joins import JoinsDraft
from mcastd.model.effect import BATCH
from mcastd.model.record import InterfaceSettings
from mcastd.model.write import Configure, Outcome

NOW = -1
"""Stands for the revision of the write that is being prepared."""


def configure(draft: Draft, joins: JoinsDraft, write: Configure, outcome: Outcome) -> Generator[None]:
    """Play joins and settings on the draft; yields between slices of BATCH items."""
    owner = write.options.owner
    for at, record in enumerate(write.joins.values(), 1):
        joins.put(record)
        if at % BATCH == 0:
            yield
    for key in [one.key for one in draft.joins() if one.key.owner == owner and one.key not in write.joins]:
        joins.delete(key)
    yield
    said_before = {one.interface: one for one in draft.settings_of(owner)}
    for interface in {**said_before, **write.settings}:
        old = said_before.get(interface) or InterfaceSettings(interface, owner)
        new = _said_now(old, write.settings.get(interface) or InterfaceSettings(interface, owner))
        if new != old:
            outcome.interfaces += 1
            outcome.intent.settings.append(new)


def _said_now(old: InterfaceSettings, new: InterfaceSettings) -> InterfaceSettings:
    """The new settings, where each thing that is said as before keeps its revision."""
    before = {(pin.table, pin.pinned): pin.revision for pin in old.pins}
    return replace(
        new,
        ttl_revision=old.ttl_revision if new.ttl_threshold == old.ttl_threshold else NOW,
        pins=tuple(sorted(pin._replace(revision=before.get((pin.table, pin.pinned), NOW)) for pin in new.pins)),
        discovery_revision=old.discovery_revision if new.router_discovery is old.router_discovery else NOW,
    )


def count_routes_alone(outcome: Outcome) -> None:
    """Take joins out of the counts: they are told from routes by `Outcome.joins`."""
    for change in outcome.joins:
        if change.before is change.after:
            outcome.unchanged -= 1
        elif change.before is None:
            outcome.created -= 1
        elif change.after is None:
            outcome.deleted -= 1
        else:
            outcome.updated -= 1
