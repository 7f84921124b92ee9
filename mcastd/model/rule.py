"""Policy rules: which routing table the packets of an incoming interface are looked up in."""

from typing import NamedTuple

from mcastd.model.address import Family

RULE_PRIORITY_MAX = 32_765
"""The kernel's own rule for the default table has 32767 (ipmr_rules_init, net/ipv4/ipmr.c); ours must come before it."""


class Rule(NamedTuple):
    """What comes in on an interface is looked up in a table."""

    table: int
    iif: str
    """Name."""
    priority: int
    """1 to RULE_PRIORITY_MAX; the lowest that matches decides."""
    families: tuple[Family, ...] = tuple(Family)
