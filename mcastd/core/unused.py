"""Tables that nothing wants any more: they are closed after a while, with their VIFs and what is learned there.

The default table stays, as do those that somebody asks to keep. From the moment its closing is pulled a table is a new one here,
not open: a route that comes meanwhile has it opened again, after the closing.
"""

from collections.abc import Container

from mcastd.core.roster import Roster
from mcastd.model.address import Family
from mcastd.model.effect import CloseTable

CLOSE_SECONDS = 60.0
"""A controller that puts its routes anew, or restarts, finds its tables as they were."""


class UnusedTables:
    """Since when which open tables are not wanted."""

    def __init__(self, roster: Roster) -> None:
        """Look at these tables."""
        self._roster = roster
        self._since: dict[int, float] = {}
        self._due: list[int] = []

    def look(self, keep: Container[int], now: float) -> bool:
        """Take note of what is unused at `now` (monotonic seconds), but for the tables to keep; whether there is any to close."""
        unused = {table for table in self._open_tables() if table and table not in keep and self._is_unused(table)}
        self._since = {table: self._since.get(table, now) for table in unused}
        self._due = [table for table, since in self._since.items() if now - since >= CLOSE_SECONDS]
        return bool(self._due)

    def pull(self) -> CloseTable | None:
        """The next table to close; None = there is none. From here on nothing is known of it."""
        while self._due:
            table = self._due.pop()
            self._since.pop(table, None)
            if self._is_unused(table):
                for family in Family:
                    self._roster.renew(table, family)
                return CloseTable(table)
        return None

    def _open_tables(self) -> set[int]:
        return {table for (table, _), kernel in self._roster.tables.items() if kernel.opened}

    def _is_unused(self, table: int) -> bool:
        tables = (self._roster.tables.get((table, family)) for family in Family)
        return not any(kernel.wanted for kernel in tables if kernel is not None)
