"""Rules held against the kernel's: what is missing is added, what is too many goes, and a refusal stops nothing else."""

import pytest

from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import Rule
from mcastd.runtime.rules import Rules

A, B, C = (Rule(100 + number, name, 1000) for number, name in enumerate(("a", "b", "c")))


class FakeKeeper:
    """Keeper and kernel in one."""

    def __init__(self) -> None:
        self.rules: set[Rule] = set()
        self.asked: list[tuple[str, str, Family]] = []
        self.refuse = ""

    async def change_rule(self, rule: Rule, family: Family, *, add: bool) -> None:
        """Add or delete."""
        self.asked.append(("add" if add else "delete", rule.iif, family))
        if rule.iif == self.refuse:
            raise McastdError(Reason.KERNEL_ERROR, f"{rule.iif} is refused")
        (self.rules.add if add else self.rules.discard)(rule)

    def read(self, family: Family) -> set[Rule]:
        """Rules of a family."""
        return {rule for rule in self.rules if rule.families == (family,)}

    def has(self) -> set[tuple[str, Family]]:
        """Interfaces and families that have a rule."""
        return {(rule.iif, rule.families[0]) for rule in self.rules}


@pytest.fixture
def keeper() -> FakeKeeper:
    return FakeKeeper()


async def test_only_the_difference_is_made(keeper: FakeKeeper) -> None:
    rules = Rules(keeper, keeper.read)
    assert await rules.apply([A, B]) == 4
    assert keeper.has() == {(name, family) for name in "ab" for family in Family}
    keeper.asked.clear()
    assert await rules.apply([A, B]) == 0
    assert keeper.asked == []
    assert await rules.apply([B._replace(families=(Family.IPV6,)), C]) == 5
    assert keeper.has() == {("b", Family.IPV6), *(("c", family) for family in Family)}
    assert [what for what, _, _ in keeper.asked] == ["add"] * 2 + ["delete"] * 3, "new ones come before old ones go"
    assert await rules.apply([]) == 3
    assert keeper.has() == set()


async def test_a_new_server_tells_the_keeper_of_all_once(keeper: FakeKeeper) -> None:
    """The keeper may be new as well, and deletes at its end what it was asked for."""
    await Rules(keeper, keeper.read).apply([A, B])
    keeper.asked.clear()
    rules = Rules(keeper, keeper.read)
    assert await rules.apply([A]) == 2
    assert keeper.asked == [("add", "a", family) for family in Family] + [("delete", "b", family) for family in Family]
    keeper.asked.clear()
    assert await rules.apply([A]) == 0
    assert keeper.asked == []


async def test_a_rule_that_somebody_deleted_is_added_again(keeper: FakeKeeper) -> None:
    rules = Rules(keeper, keeper.read)
    await rules.apply([A])
    keeper.rules.clear()
    assert await rules.apply([A]) == 2
    assert keeper.has() == {("a", family) for family in Family}


async def test_a_refusal_is_raised_after_the_others_are_made_and_tried_again(keeper: FakeKeeper) -> None:
    rules = Rules(keeper, keeper.read)
    keeper.refuse = "a"
    with pytest.raises(McastdError, match="a is refused"):
        await rules.apply([A, B])
    assert keeper.has() == {("b", family) for family in Family}
    keeper.refuse = ""
    await rules.apply([A, B])
    assert keeper.has() == {(name, family) for name in "ab" for family in Family}
