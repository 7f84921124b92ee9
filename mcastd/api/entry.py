"""What one call asks for and what came of it, noted by its handler, for the audit log to tell."""

from collections.abc import Callable

from mcastd.model.write import Outcome


class Entry:
    """One call's; counts are those of all its writes together."""

    __slots__ = (
        "created",
        "deleted",
        "dry_run",
        "epoch",
        "failed",
        "on_write",
        "owner",
        "revision",
        "session",
        "unchanged",
        "updated",
    )

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self.owner = ""
        """Whose wishes are to be changed; empty = the call names nobody."""
        self.epoch = 0
        self.dry_run = False
        self.session = 0
        """Number of the session that the call has opened; 0 = none."""
        self.created = self.updated = self.deleted = self.unchanged = 0
        self.failed = 0
        """Items that were refused."""
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
        self.refused(outcome.refused)

    def refused(self, items: int) -> None:
        """So many items of a session, or of a write, were refused."""
        self.failed += items
        if self.on_write is not None:
            self.on_write()

    def opened(self, session: int, outcome: Outcome) -> None:
        """The call is a session from now on."""
        self.session = session
        self.wrote(outcome)
