"""mcastd.model.errors: stable reasons and the codes that go with them."""

import grpc
import pytest

from mcastd.model.errors import CODES, Code, KernelRefused, McastdError, Problem, Reason


def test_every_reason_has_a_code() -> None:
    assert set(CODES) == set(Reason)


@pytest.mark.parametrize("code", Code)
def test_codes_are_those_of_grpc(code: Code) -> None:
    assert grpc.StatusCode[code.name].value[0] == code


@pytest.mark.parametrize("reason", Reason)
def test_reasons_say_their_name(reason: Reason) -> None:
    assert reason.value == reason.name == str(reason)


def test_a_problem_knows_its_code() -> None:
    assert Problem(Reason.VIF_TABLE_FULL, "no free VIF").code is Code.RESOURCE_EXHAUSTED
    assert Problem(Reason.VIF_TABLE_FULL, "no free VIF").metadata == {}


def test_an_error_carries_its_problem_with_metadata_as_text() -> None:
    error = McastdError(Reason.STALE_EPOCH, "epoch 1 is stale", highest=42)
    assert (error.reason, str(error)) == (Reason.STALE_EPOCH, "epoch 1 is stale")
    assert error.problem == Problem(Reason.STALE_EPOCH, "epoch 1 is stale", {"highest": "42"})
    assert McastdError(Reason.STALE_EPOCH, "x").problem.metadata == {}


def test_what_the_kernel_refused() -> None:
    error = KernelRefused("MRT_ADD_VIF", 99, "no VIF", vif=3)
    assert (error.errno, error.reason) == (99, Reason.KERNEL_ERROR)
    assert error.problem.metadata == {"call": "MRT_ADD_VIF", "errno": "99", "vif": "3"}
