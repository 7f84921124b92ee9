"""Who may do what: access levels from the contract's options, owners from the caller's socket."""

from google.protobuf import descriptor

from mcast.cli.v1 import options_pb2
from mcast.v1 import route_service_pb2 as rs
from mcastd.api.fields import invalid
from mcastd.api.ports import Caller
from mcastd.model.errors import McastdError, Reason
from mcastd.model.owner import owner_problem
from mcastd.model.settings import Access
from mcastd.model.write import WriteOptions


def needed(method: descriptor.MethodDescriptor) -> Access:
    """The access level of a method; one that says nothing is for admin alone."""
    said: int = method.GetOptions().Extensions[options_pb2.access]  # type: ignore[index] # The stubs of protobuf lack custom options.
    return Access(said) if said else Access.ADMIN


def check(caller: Caller, access: Access, what: str) -> None:
    """Refuse a caller whose level is too low."""
    if caller.access < access:
        text = (
            f"{what} needs {access.name.lower()} access, and this socket gives {caller.access.name.lower()}: use another socket"
        )
        raise McastdError(Reason.NOT_ALLOWED, text, need=access.name.lower(), have=caller.access.name.lower())


def write_options(message: rs.WriteOptions, caller: Caller) -> WriteOptions:
    """The options of a write; another owner than the caller's own, and taking over, need admin access."""
    owner = message.owner or caller.owner
    if problem := owner_problem(owner):
        raise invalid(Reason.INVALID_VALUE, "options.owner", owner, problem)
    if owner != caller.owner:
        check(caller, Access.ADMIN, f"options.owner {owner!r} (the caller's own is {caller.owner!r})")
    if message.take_over:
        check(caller, Access.ADMIN, "options.take_over")
    return WriteOptions(
        owner=owner,
        epoch=message.epoch,
        validate_only=message.validate_only,
        take_over=message.take_over,
        all_or_nothing=message.all_or_nothing,
        if_revision=message.if_revision,
    )
