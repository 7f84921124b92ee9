"""Effects: what the engine asks the outside to do, in order; each is answered by its result."""

from dataclasses import dataclass

from mcastd.model.address import Family
from mcastd.model.route import Forwarding
from mcastd.model.template import TemplateChange

BATCH = 1000
"""MFC entries in one call of the kernel adapter, and objects handled between two yields to the event loop."""


@dataclass(frozen=True, slots=True)
class OpenTable:
    """Open the multicast routing sockets of a table; result by family: None, or the Problem that says why not."""

    table: int


@dataclass(frozen=True, slots=True)
class CloseTable:
    """Close the sockets of a table that nothing wants, of both families: its VIFs and entries go; no result."""

    table: int


@dataclass(frozen=True, slots=True)
class SetVifMap:
    """Tell the keeper which VIF number stands for which interface; done when it has read all queued upcalls.

    A number that is to be added is in the map before the kernel has it; one that was freed leaves the map last: so a
    successor that finds a number in the map but not in the kernel knows that entries may still carry its bit.
    """

    table: int
    family: Family
    entries: tuple[tuple[int, int, str], ...]
    """VIF number, ifindex, name."""


@dataclass(frozen=True, slots=True)
class AddVif:
    """MRT_ADD_VIF or MRT6_ADD_MIF; result errno, 0 = done."""

    table: int
    family: Family
    vif: int
    ifindex: int
    name: str


@dataclass(frozen=True, slots=True)
class DelVif:
    """MRT_DEL_VIF or MRT6_DEL_MIF; result errno, 0 = done."""

    table: int
    family: Family
    vif: int


@dataclass(frozen=True, slots=True)
class ProgramMfc:
    """MRT_ADD_MFC or MRT6_ADD_MFC for at most BATCH entries, in place where they exist; result errnos, None = all done."""

    table: int
    family: Family
    keys: list[bytes]
    forwardings: list[Forwarding]


@dataclass(frozen=True, slots=True)
class DeleteMfc:
    """MRT_DEL_MFC or MRT6_DEL_MFC for at most BATCH entries; result errnos, None = all done."""

    table: int
    family: Family
    keys: list[bytes]


@dataclass(frozen=True, slots=True)
class SetTemplates:
    """Give the keeper changes of a table's templates, or (`whole`) a new set.

    Done when it uses them, and when every record of what older ones answered has come.
    """

    table: int
    family: Family
    changes: list[TemplateChange]
    whole: bool


Effect = OpenTable | CloseTable | SetVifMap | AddVif | DelVif | ProgramMfc | DeleteMfc | SetTemplates
