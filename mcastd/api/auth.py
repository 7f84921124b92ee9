"""Who may do what: access levels from the contract's options, owners from the caller's socket."""

from google.protobuf import descriptor

from mcast.cli.v1 import options_pb2
from mcast.v1 import route_service_pb2 as rs
from mcastd.api.fields import invalid
from mcastd.api.ports import Caller
from mcastd.model.errors import McastdError, Reason
from mcastd.model.owner import KERNEL_OWNER, owner_problem
from mcastd.model.settings import Access
from mcastd.model.write import WriteOptions


def needed(method: descriptor.MethodDescriptor) -> Access:
    """The access level of a method; one that says nothing is for admin alone."""
    said: int = method.GetOptions().Extensions[options_pb2.access]  # type: ignore[index] # The stubs of protobuf lack custom options.
    return Access(said) if said else Access.ADMIN


def check(caller: Caller, access: Access, what: str) -> None:
    """Refuse a caller whose level is too low."""
    if caller.access < access:
        text = f"{what} needs {access.name.lower()} access, and {_has(caller)}"
        raise McastdError(Reason.NOT_ALLOWED, text, need=access.name.lower(), have=caller.access.name.lower())


def _has(caller: Caller) -> str:
    """What a caller has whose access is too low, and the remedy."""
    access = caller.access.name.lower()
    if not caller.peer:
        return f"this socket gives {access}: use another one"
    return f"the configuration must say so: principal {caller.principal!r} has {access}"


def write_options(message: rs.WriteOptions, caller: Caller, field: str = "options", *, deletes: bool = False) -> WriteOptions:
    """The options of a write, which stand in `field`; another owner than the caller's own, and taking over, need admin access.

    One that deletes may act for owner "kernel": that is how an operator gets rid of what was found.
    """
    owner = message.owner or caller.owner
    caller.entry.owner, caller.entry.epoch, caller.entry.dry_run = owner, message.epoch, message.validate_only
    if not (deletes and owner == KERNEL_OWNER) and (problem := owner_problem(owner)):
        raise invalid(Reason.INVALID_VALUE, f"{field}.owner", owner, problem)
    if owner != caller.owner:
        check(caller, Access.ADMIN, f"{field}.owner {owner!r} (the caller's own is {caller.owner!r})")
    if message.take_over:
        check(caller, Access.ADMIN, f"{field}.take_over")
    caller.entry.take_over = message.take_over
    caller.entry.needs = Access.ADMIN if owner != caller.owner or message.take_over else Access.WRITE
    caller.entry.routes_max = caller.quota.routes if owner == caller.owner else 0
    return WriteOptions(
        owner=owner,
        epoch=message.epoch,
        validate_only=message.validate_only,
        take_over=message.take_over,
        all_or_nothing=message.all_or_nothing,
        if_revision=message.if_revision,
        owner_routes_max=caller.entry.routes_max,
    )
