"""What one call asks for and what came of it, noted by its handler, for the audit log to tell."""

from collections.abc import Callable

from mcastd.model.errors import Problem
from mcastd.model.settings import Access
from mcastd.model.write import Outcome


class Entry:
    """One call's; counts are those of all its writes together."""

    __slots__ = (
        "created",
        "deleted",
        "dry_run",
        "epoch",
        "failed",
        "needs",
        "on_write",
        "owner",
        "reason",
        "revision",
        "routes_max",
        "session",
        "take_over",
        "unchanged",
        "updated",
    )

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self.owner = ""
        """Whose wishes are to be changed; empty = the call names nobody."""
        self.epoch = 0
        self.dry_run = False
        self.needs: Access | None = None
        """Access that what it asks for needs, which may be more than its method does; None = it has not asked yet."""
        self.routes_max = 0
        """Routes that the owner may have, as the configuration has it now; 0 = as many as there may be."""
        self.session = 0
        """Number of the session that the call has opened; 0 = none."""
        self.created = self.updated = self.deleted = self.unchanged = 0
        self.failed = 0
        """Items that were refused."""
        self.reason = ""
        """Why the first of them was."""
        self.take_over = False
        self.revision = 0
        """Of the last write; 0 = there was none."""
        self.on_write: Callable[[], None] | None = None
        """Called when a session has written, and when it has opened."""

    def wrote(self, outcome: Outcome) -> None:
        """A write was carried out."""
        self.created += outcome.created
        self.updated += outcome.updated
        self.deleted += outcome.deleted
        self.unchanged += outcome.unchanged
        self.revision = outcome.revision
        self.refused(
            outcome.refused, next((one.problem for one in outcome.changes if one.problem), None) if outcome.refused else None
        )

    def refused(self, items: int, problem: Problem | None) -> None:
        """So many items of a session, or of a write, were refused, the first of them for this."""
        self.failed += items
        if problem is not None and not self.reason:
            self.reason = problem.reason.value
        if self.on_write is not None:
            self.on_write()

    def opened(self, session: int, outcome: Outcome) -> None:
        """The call is a session from now on."""
        self.session = session
        self.wrote(outcome)
