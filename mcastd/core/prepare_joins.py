"""Prepare a write of joins: what it changes in the joins of its owner.

Each owner has joins of its own, so nobody is in another's way.
"""

from collections.abc import Generator

from mcastd.core.desired import Draft
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord, route_join_key
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import Intent
from mcastd.model.write import DeleteJoins, JoinChange, Outcome, PutJoins, RestoreJoins


class JoinsDraft:
    """The joins of one write on top of a draft."""

    __slots__ = ("_changed", "_draft", "_outcome", "grown")

    def __init__(self, draft: Draft, outcome: Outcome) -> None:
        """Nothing is changed yet; the outcome counts what is."""
        self._draft = draft
        self._outcome = outcome
        self._changed: dict[JoinKey, JoinRecord | None] = {}
        self.grown = 0
        """How many joins there are more."""

    def get(self, key: JoinKey) -> JoinRecord | None:
        """The join of a key, as this write leaves it so far."""
        return self._changed[key] if key in self._changed else self._draft.join(key)

    def put(self, record: JoinRecord) -> None:
        """Join, or say what is joined with another cookie."""
        outcome, old = self._outcome, self.get(record.key)
        if old is not None and old.cookie == record.cookie:
            outcome.unchanged += 1
            outcome.joins.append(JoinChange(record.key, old, old))
            return
        if old is None:
            outcome.created += 1
            self.grown += 1
        else:
            outcome.updated += 1
        self._changed[record.key] = record
        outcome.joins.append(JoinChange(record.key, old, record))

    def delete(self, key: JoinKey) -> None:
        """Leave; leaving what is not joined is done already."""
        outcome, old = self._outcome, self.get(key)
        if old is None:
            outcome.unchanged += 1
            return
        outcome.deleted += 1
        self.grown -= 1
        self._changed[key] = None
        outcome.joins.append(JoinChange(key, old, None))

    def settle(self, intent: Intent, joins_max: int) -> None:
        """Put what is changed into the intent; McastdError if there would be too many joins."""
        for key, record in self._changed.items():
            if record is not None:
                intent.join_puts.append(record)
            elif self._draft.join(key) is not None:
                intent.join_deletes.append(key)
        self._hand_over(intent)
        would = self._draft.joins_count + self.grown
        if self.grown > 0 and would > joins_max:
            text = f"{would} joins would be more than the {joins_max} allowed (setting joins_max): nothing was changed"
            raise McastdError(Reason.MEMBERSHIP_LIMIT, text, limit=joins_max, would=would)

    def _hand_over(self, intent: Intent) -> None:
        """What was found in the kernel, and had no owner, is that owner's who asks for just the same."""
        if not self._draft.owner(KERNEL_OWNER).revision:
            return
        asked = [record.key for record in intent.join_puts] + [route_join_key(route) for route in intent.puts if route.join]
        for found in dict.fromkeys(key._replace(owner=KERNEL_OWNER) for key in asked):
            if found not in self._changed and self._draft.join(found) is not None:
                intent.join_deletes.append(found)


def prepare_joins(joins: JoinsDraft, write: PutJoins | DeleteJoins | RestoreJoins) -> Generator[None]:
    """Play a write on the draft; yields between slices of BATCH items."""
    match write:
        case PutJoins():
            for at, record in enumerate(write.joins, 1):
                joins.put(record)
                if at % BATCH == 0:
                    yield
        case DeleteJoins():
            for at, key in enumerate(write.keys, 1):
                joins.delete(key)
                if at % BATCH == 0:
                    yield
        case RestoreJoins():
            _restore(joins, write)


def _restore(joins: JoinsDraft, write: RestoreJoins) -> None:
    for change in write.changes:
        if joins.get(change.key) is not change.after:
            continue  # Somebody has written since.
        if change.before is None:
            joins.delete(change.key)
        else:
            joins.put(JoinRecord(change.key, change.before.cookie))
