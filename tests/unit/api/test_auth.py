"""mcastd.api.auth: levels from the contract, owners from the caller."""

from types import SimpleNamespace
from typing import Any

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import auth
from mcastd.api.binding import services
from mcastd.api.ports import Caller
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Access

ADMIN, WRITE = Caller(Access.ADMIN, "local"), Caller(Access.WRITE, "alice")


def test_every_method_of_the_contract_says_its_level() -> None:
    levels = {method.full_name: auth.needed(method) for service in services() for method in service.methods}
    assert levels["mcast.v1.RouteService.ListRoutes"] is Access.VIEW
    assert levels["mcast.v1.RouteService.PutRoutes"] is Access.WRITE
    assert levels["mcast.v1.DaemonService.Shutdown"] is Access.ADMIN


def test_a_method_that_says_nothing_is_for_admin() -> None:
    class Silent:
        Extensions: Any = {}  # noqa: RUF012 - looked up, never changed

    Silent.Extensions = type("Unset", (), {"__getitem__": lambda _self, _key: 0})()
    method: Any = SimpleNamespace(GetOptions=Silent)
    assert auth.needed(method) is Access.ADMIN


@pytest.mark.parametrize("have", list(Access))
@pytest.mark.parametrize("need", list(Access))
def test_a_level_includes_those_below(have: Access, need: Access) -> None:
    caller = Caller(have, "x")
    if have >= need:
        auth.check(caller, need, "PutRoutes")
        return
    with pytest.raises(McastdError, match=r"^PutRoutes needs") as caught:
        auth.check(caller, need, "PutRoutes")
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert caught.value.problem.metadata == {"need": need.name.lower(), "have": have.name.lower()}


def test_options_are_taken_over() -> None:
    message = rs.WriteOptions(owner="bob", epoch=3, validate_only=True, take_over=True, all_or_nothing=True, if_revision=9)
    options = auth.write_options(message, ADMIN)
    assert (options.owner, options.epoch, options.if_revision) == ("bob", 3, 9)
    assert options.validate_only
    assert options.take_over
    assert options.all_or_nothing
    assert auth.write_options(rs.WriteOptions(), WRITE).owner == "alice"
    assert auth.write_options(rs.WriteOptions(owner="alice"), WRITE).owner == "alice"


def test_what_was_found_in_the_kernel_is_deleted_by_admin_alone() -> None:
    kernel = rs.WriteOptions(owner="kernel")
    assert auth.write_options(kernel, ADMIN, deletes=True).owner == "kernel"
    with pytest.raises(McastdError) as caught:
        auth.write_options(kernel, WRITE, deletes=True)
    assert caught.value.reason is Reason.NOT_ALLOWED
    with pytest.raises(McastdError, match="reserved"):
        auth.write_options(kernel, ADMIN)


@pytest.mark.parametrize("message", [rs.WriteOptions(owner="bob"), rs.WriteOptions(take_over=True)])
def test_acting_for_others_needs_admin(message: rs.WriteOptions) -> None:
    with pytest.raises(McastdError) as caught:
        auth.write_options(message, WRITE)
    assert caught.value.problem.metadata == {"need": "admin", "have": "write"}


@pytest.mark.parametrize("owner", ["kernel", "config", "A", "o" * 64, "a b"])
def test_owners_that_nobody_can_be(owner: str) -> None:
    with pytest.raises(McastdError) as caught:
        auth.write_options(rs.WriteOptions(owner=owner), ADMIN)
    assert caught.value.problem.metadata["field"] == "options.owner"
