"""Completion of names that only the daemon knows. It has a fifth of a second; whatever goes wrong, nothing is offered."""

import click

from mcastd.cli.ctl.contract import Contract, find_path, message_class
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.output import rows_of
from mcastd.cli.ctl.shared import read_target
from mcastd.cli.ctl.transport import BadConnectionError, Connection, Target

SECONDS = 0.2
MOST = 500
"""Names offered; a list that is longer helps nobody."""

# Completer -> method and path of the names in its answers. The one table here of what the contract calls things: an option can
# name a completer but not say where its values are.
SOURCES = {
    "interface": ("mcast.v1.InterfaceService.ListInterfaces", "interfaces.name"),
    "owner": ("mcast.v1.DaemonService.GetStatus", "owners.name"),
    "group": ("mcast.v1.RouteService.ListRoutes", "routes.group"),
}


def complete(name: str, ctx: click.Context) -> list[str]:
    """The values of a completer."""
    if name not in SOURCES:
        return []
    try:
        return names_of(Contract.shipped(), *SOURCES[name], read_target(ctx))
    except (CallError, BadConnectionError, click.UsageError):
        return []


def names_of(contract: Contract, method_name: str, path: str, target: Target) -> list[str]:
    """Names that a method of the daemon tells, sorted; CallError if it does not in time."""
    service, _, name = method_name.rpartition(".")
    method = next(one.methods_by_name[name] for one in contract.services() if one.full_name == service)
    *way, last = find_path(method.output_type, path)
    request = message_class(method.input_type)()
    if "limit" in method.input_type.fields_by_name:
        request.limit = MOST  # type: ignore[attr-defined] # seen to be there
    found: set[str] = set()
    quick = Target(target.address, target.tls_ca, target.tls_cert, target.tls_key, target.tls_server_name, SECONDS)
    with Connection(quick) as connection:
        for answer in connection.call(method, [request], whole=True):
            found.update(getattr(row, last.name) for row in rows_of(answer, tuple(way)))
    return sorted(found)[:MOST]
