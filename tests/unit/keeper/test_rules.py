"""The keeper's rules: what a RULE may say, and that an orderly end leaves none behind."""

import logging
from typing import Any

import pytest

from mcastd.keeper import rules
from mcastd.keeper.channel import ChannelError
from mcastd.keeper.rules import PolicyRules, take_rule
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import Rule

GOOD: dict[str, Any] = {"table": 100, "iif": "eth0", "priority": 1000, "family": 4, "add": True}


class FakeKernel:
    """Rules in memory; what is named is refused."""

    def __init__(self) -> None:
        self.rules: set[Rule] = set()
        self.refuse = ""

    def change(self, rule: Rule, _family: Family, *, add: bool) -> bool:
        """As change_rule."""
        if rule.iif == self.refuse:
            raise McastdError(Reason.KERNEL_ERROR, "refused")
        before = rule in self.rules
        (self.rules.add if add else self.rules.discard)(rule)
        return before != add


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel()
    monkeypatch.setattr(rules, "change_rule", made.change)
    return made


def test_a_rule_is_read() -> None:
    assert take_rule(GOOD) == (Rule(100, "eth0", 1000, (Family.IPV4,)), Family.IPV4, True)
    assert take_rule(GOOD | {"family": 6, "add": False})[1:] == (Family.IPV6, False)


@pytest.mark.parametrize(
    "change",
    [
        {"table": 0},
        {"table": True},
        {"table": "100"},
        {"priority": 0},
        {"priority": 32766},
        {"family": 5},
        {"add": 1},
        {"iif": ""},
        {"iif": None},
        {"iif": "a/b"},
        {"iif": "a b"},
        {"iif": "a:b"},
        {"iif": "."},
        {"iif": ".."},
        {"iif": "sixteen-bytes-xx"},
        {"iif": "\ud800"},
        {"iif": "a\0"},
    ],
)
def test_what_can_be_no_rule_is_nothing_a_server_says(change: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        take_rule(GOOD | change)


def test_the_end_deletes_what_was_asked_for_and_nothing_else(kernel: FakeKernel) -> None:
    made, stays = PolicyRules(), Rule(7, "other", 7, (Family.IPV4,))
    kernel.rules.add(stays)
    made.change(GOOD)
    made.change(GOOD)
    made.change(GOOD | {"family": 6})
    made.change(GOOD | {"table": 200})
    made.change(GOOD | {"table": 200, "add": False})
    assert len(kernel.rules) == 3
    made.delete_all()
    assert kernel.rules == {stays}


def test_a_rule_that_cannot_be_deleted_at_the_end_does_not_keep_the_others(
    kernel: FakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    made = PolicyRules()
    made.change(GOOD)
    made.change(GOOD | {"iif": "eth1"})
    kernel.refuse = "eth0"
    with caplog.at_level(logging.WARNING):
        made.delete_all()
    assert {rule.iif for rule in kernel.rules} == {"eth0"}
    assert "stays behind" in caplog.text


def test_there_are_only_so_many(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES_MAX", 2)
    made = PolicyRules()
    for priority in (1, 2):
        made.change(GOOD | {"priority": priority})
    with pytest.raises(McastdError) as refused:
        made.change(GOOD | {"priority": 3})
    assert refused.value.reason is Reason.TOO_MANY_ITEMS
    made.change(GOOD | {"priority": 2})
    made.change(GOOD | {"priority": 1, "add": False})
    made.change(GOOD | {"priority": 3})
    assert {rule.priority for rule in kernel.rules} == {2, 3}
