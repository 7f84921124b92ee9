"""Policy rules on the server's behalf: each request checked, each rule remembered, so that an orderly end leaves none behind."""

import logging
from collections.abc import Mapping
from typing import Any

from mcastd.keeper.channel import ChannelError, take_family, take_int
from mcastd.kernel.rules import change_rule, fits
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import RULE_PRIORITY_MAX, Rule
from mcastd.model.settings import TABLE_MAX

RULES_MAX = 4096
"""Rules at once; the kernel looks at them one after the other for each packet of a new flow."""

_log = logging.getLogger(__name__)


class PolicyRules:
    """Rules that servers have asked for since the keeper began."""

    def __init__(self) -> None:
        """Start with none."""
        self._rules: dict[tuple[Rule, Family], None] = {}

    def change(self, values: Mapping[str, Any]) -> None:
        """Do what a RULE asks; one that is there, or gone, already is no error.

        Raises ChannelError where it can't be a rule, McastdError NOT_ALLOWED, TOO_MANY_ITEMS or KERNEL_ERROR.
        """
        rule, family, add = take_rule(values)
        if add:
            if len(self._rules) >= RULES_MAX and (rule, family) not in self._rules:
                raise McastdError(Reason.TOO_MANY_ITEMS, f"there are {RULES_MAX} rules, which is the limit", limit=RULES_MAX)
            change_rule(rule, family, add=True)
            self._rules[rule, family] = None
        else:
            change_rule(rule, family, add=False)
            self._rules.pop((rule, family), None)

    def rules(self) -> list[tuple[Rule, Family]]:
        """All of them."""
        return list(self._rules)

    def remember(self, values: Mapping[str, Any]) -> None:
        """Know of what a RULE has asked an earlier process for; ChannelError if it can't be one."""
        rule, family, add = take_rule(values)
        if add:
            self._rules[rule, family] = None
        else:
            self._rules.pop((rule, family), None)

    def forget(self) -> None:
        """Know of none; the kernel keeps them."""
        self._rules.clear()

    def delete_all(self) -> None:
        """Delete every rule that was asked for; what the kernel refuses is worth a warning."""
        for rule, family in list(self._rules):
            try:
                change_rule(rule, family, add=False)
            except McastdError as exc:
                _log.warning("a policy rule stays behind", extra={"error": str(exc)})
        self._rules.clear()


def rule_values(rule: Rule, family: Family, *, add: bool) -> dict[str, object]:
    """Body of a RULE."""
    return {"table": rule.table, "iif": rule.iif, "priority": rule.priority, "family": int(family), "add": add}


def take_rule(values: Mapping[str, Any]) -> tuple[Rule, Family, bool]:
    """The rule of a RULE, its family, and whether to add it; ChannelError if it can't be one."""
    family, add, iif = take_family(values), values.get("add"), values.get("iif")
    if not isinstance(add, bool):
        raise ChannelError(f"add is {add!r}, neither true nor false")
    if not isinstance(iif, str) or not fits(iif):
        raise ChannelError(f"iif is {iif!r}, not the name of an interface")
    table, priority = take_int(values, "table", 1, TABLE_MAX), take_int(values, "priority", 1, RULE_PRIORITY_MAX)
    return Rule(table, iif, priority, (family,)), family, add
