"""Policy rules that the configuration asks for, held against those of the kernel; the keeper makes the difference."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from mcastd.kernel.rules import our_rules
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.rule import Rule

_log = logging.getLogger(__name__)


class RulePort(Protocol):
    """What the rules ask of the keeper."""

    async def change_rule(self, rule: Rule, family: Family, *, add: bool) -> None:
        """Returns when it is so; McastdError if it can't be."""


class Rules:
    """Our rules in the kernel, which outlive the server and end with the daemon."""

    def __init__(self, keeper: RulePort, read: Callable[[Family], set[Rule]] = our_rules) -> None:
        """Ask this keeper; `read` tells what the kernel has of one family."""
        self._keeper = keeper
        self._read = read
        self._told: set[tuple[Rule, Family]] = set()
        """Rules that this server has had the keeper add: it deletes those at the daemon's end that it knows of."""
        self._turn = asyncio.Lock()

    async def apply(self, wanted: Iterable[Rule]) -> int:
        """Have the kernel hold just these of ours; how many it has been made to change.

        New ones come before old ones go. What is refused does not keep the others: then the first McastdError is raised.
        """
        async with self._turn:
            return await self._apply({(_of(rule, family), family) for rule in wanted for family in rule.families})

    async def _apply(self, wanted: set[tuple[Rule, Family]]) -> int:
        present = {(rule, family) for family in Family for rule in await asyncio.to_thread(self._read, family)}
        self._told &= present
        # A rule that a predecessor made is told once more: should that keeper be gone, this one does not know of it.
        changes = [(one, True) for one in sorted(wanted - self._told)] + [(one, False) for one in sorted(present - wanted)]
        errors = []
        for (rule, family), add in changes:
            try:
                await self._keeper.change_rule(rule, family, add=add)
            except McastdError as exc:
                _log.error("a policy rule could not be changed", extra={"reason": exc.reason.value, "error": str(exc)})
                errors.append(exc)
                continue
            (self._told.add if add else self._told.discard)((rule, family))
            if (rule, family) not in present or not add:
                _log.info("a policy rule is %s", "added" if add else "deleted", extra=_words(rule, family))
        if errors:
            raise errors[0]
        return len(wanted - present) + len(present - wanted)


def _of(rule: Rule, family: Family) -> Rule:
    """The rule as the kernel has it: of one family."""
    return rule._replace(families=(family,))


def _words(rule: Rule, family: Family) -> dict[str, object]:
    return {"interface": rule.iif, "table": rule.table, "priority": rule.priority, "family": family.name}
