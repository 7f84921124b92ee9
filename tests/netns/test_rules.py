"""mcastd.kernel.rules in the real kernel: ours are told from others', and only ours are touched."""

import pytest

from mcastd.kernel import privileges
from mcastd.kernel.rules import change_rule, our_rules
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import RULE_PRIORITY_MAX, Rule
from tests.testbed import Testbed

pytestmark = pytest.mark.kernel


def test_rules_are_added_read_and_deleted(testbed: Testbed, family: Family) -> None:
    namespace = testbed.namespace()
    wanted = [
        Rule(100, "late", 5, (family,)),
        Rule(4_000_000, "late", RULE_PRIORITY_MAX, (family,)),
        Rule(100, "n\xe4me", 5, (family,)),
    ]
    with namespace.entered():
        for rule in wanted:
            assert change_rule(rule, family, add=True)
            assert not change_rule(rule, family, add=True), "it is there already"
        assert our_rules(family) == set(wanted)
        assert our_rules(Family.IPV4 if family is Family.IPV6 else Family.IPV6) == set()
        assert change_rule(wanted[0], family, add=False)
        assert not change_rule(wanted[0], family, add=False), "it is gone already"
        assert our_rules(family) == set(wanted[1:])


def test_rules_of_others_are_neither_read_nor_deleted(testbed: Testbed, family: Family) -> None:
    namespace = testbed.namespace()
    namespace.command("ip", f"-{family.value}", "mrule", "add", "pref", "7", "iif", "up", "lookup", "100")
    rule = Rule(100, "up", 7, (family,))
    with namespace.entered():
        assert our_rules(family) == set()
        assert not change_rule(rule, family, add=False)
        assert change_rule(rule, family, add=True)
        assert change_rule(rule, family, add=False)
    assert "lookup 100" in namespace.command("ip", f"-{family.value}", "mrule", "list", "pref", "7")


def test_many_rules_are_read(testbed: Testbed, family: Family) -> None:
    """The kernel's answer comes in several parts."""
    wanted = {Rule(number, "up", number, (family,)) for number in range(1000, 2000)}
    with testbed.namespace().entered():
        for rule in wanted:
            change_rule(rule, family, add=True)
        assert our_rules(family) == wanted


def test_without_the_capability_rules_can_be_read_and_not_changed(testbed: Testbed, family: Family) -> None:
    def attempt() -> Reason:
        privileges.set_capabilities(privileges.CAP_NET_RAW, privileges.CAP_NET_RAW)  # of this thread, which ends with the call
        assert our_rules(family) == set()
        with pytest.raises(McastdError, match="CAP_NET_ADMIN") as refused:
            change_rule(Rule(100, "up", 5, (family,)), family, add=True)
        return refused.value.reason

    assert testbed.namespace().run(attempt) is Reason.NOT_ALLOWED
