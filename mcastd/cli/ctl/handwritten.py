"""Commands that are written by hand, beside those made from the contract; they alone name its RPCs. Loaded when they run."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.tree import Tree

HEADING = "Views"
"""Over them in help."""


class Handwritten(NamedTuple):
    """One such command."""

    name: str
    summary: str
    needs: tuple[str, ...]
    """Full names of the methods that it calls: a contract without them has no such command."""
    make: Callable[[Contract, Tree], click.Command]


def _top(contract: Contract, tree: Tree) -> click.Command:
    from mcastd.cli.ctl.top.command import Top  # noqa: PLC0415 - other commands do without it

    return Top(contract, tree)


_ALL = (
    Handwritten(
        "top", "Show flows by rate, live.", ("mcast.v1.RouteService.ListRoutes", "mcast.v1.DaemonService.GetStatus"), _top
    ),
)


def handwritten(contract: Contract) -> Iterator[Handwritten]:
    """Those for which a contract has what they need; one replaces a command of the contract that has the same name."""
    known = {method.full_name for service in contract.services() for method in service.methods}
    return (one for one in _ALL if known.issuperset(one.needs))
