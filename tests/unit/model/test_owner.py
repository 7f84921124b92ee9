"""mcastd.model.owner: names of owners."""

import pytest

from mcastd.model.owner import CONFIG_OWNER, KERNEL_OWNER, OWNER_MAX, owner_problem


@pytest.mark.parametrize("name", ["a", "sdn-1", "ops.team_2", "9", "-", "x" * OWNER_MAX])
def test_names_of_owners(name: str) -> None:
    assert owner_problem(name) == ""


@pytest.mark.parametrize("name", ["", "x" * (OWNER_MAX + 1), "SDN", "a b", "a/b", "é", "a\n", "a:b"])
def test_what_is_no_name_of_an_owner(name: str) -> None:
    assert owner_problem(name) == "an owner is 1 to 63 of a-z, 0-9, '.', '_' and '-'"


@pytest.mark.parametrize("name", [CONFIG_OWNER, KERNEL_OWNER])
def test_names_that_no_caller_can_have(name: str) -> None:
    assert "is reserved" in owner_problem(name)
