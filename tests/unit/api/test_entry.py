"""mcastd.api.entry: what a call has written, summed up."""

from mcastd.api.entry import Entry
from mcastd.model.errors import Problem, Reason
from mcastd.model.write import Outcome


def test_writes_are_summed_up() -> None:
    entry, heard = Entry(), list[int]()
    entry.on_write = lambda: heard.append(entry.failed)
    entry.wrote(Outcome(revision=7, created=1, updated=2, deleted=3, unchanged=4, refused=5))
    entry.wrote(Outcome(revision=9, created=10))
    entry.refused(3, None)
    assert (entry.created, entry.updated, entry.deleted, entry.unchanged, entry.failed) == (11, 2, 3, 4, 8)
    assert entry.revision == 9
    assert heard == [5, 5, 8]


def test_the_first_reason_is_kept() -> None:
    entry, outcome = Entry(), Outcome(revision=7)
    outcome.refuse(1, Problem(Reason.OWNED_BY_OTHER, "no"), None)
    entry.wrote(outcome)
    entry.refused(1, Problem(Reason.INVALID_GROUP, "no"))
    assert (entry.failed, entry.reason) == (2, "OWNED_BY_OTHER")


def test_a_session_is_opened_by_a_write() -> None:
    entry = Entry()
    entry.opened(3, Outcome(revision=4))
    assert (entry.session, entry.revision) == (3, 4)
