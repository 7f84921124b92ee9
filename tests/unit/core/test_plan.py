"""mcastd.core.plan: works that take turns."""

from mcastd.core.plan import Work, WorkQueue
from mcastd.model.effect import BATCH
from tests.fakerouter import sg


def test_a_work_is_taken_in_batches() -> None:
    work = Work(sg(n) for n in range(BATCH + 5))
    assert work.take() == [sg(n) for n in range(BATCH)]
    assert work.remaining == 5
    work.add([sg(9999)])
    assert work.take() == [*(sg(n) for n in range(BATCH, BATCH + 5)), sg(9999)]
    assert (work.remaining, work.take()) == (0, [])


def test_works_take_turns() -> None:
    queue, long, short = WorkQueue(), Work(sg(n) for n in range(3 * BATCH)), Work([sg(60_000)])
    queue.push(long)
    queue.push(short)
    order = []
    while (turn := queue.next()) is not None:
        order.append((turn[0], len(turn[1])))
        queue.took(turn[0])
    assert order == [(long, BATCH), (short, 1), (long, BATCH), (long, BATCH)]
    assert queue.finished == [short, long]
    assert len(queue) == 0


def test_a_work_that_is_taken_is_not_finished_before_it_is_given_back() -> None:
    queue, work = WorkQueue(), Work([sg(1)])
    queue.push(work)
    assert len(queue) == 1
    assert queue.next() == (work, [sg(1)])
    assert not work.finished
    queue.took(work)
    assert work.finished


def test_a_work_that_grows_while_it_is_out_goes_on() -> None:
    queue, work = WorkQueue(), Work([sg(1)])
    queue.push(work)
    queue.next()
    work.add([sg(2)])
    queue.took(work)
    assert not work.finished
    assert queue.next() == (work, [sg(2)])


def test_an_empty_work_is_finished_at_its_turn() -> None:
    queue, work = WorkQueue(), Work()
    queue.push(work)
    assert queue.next() == (work, [])
    queue.took(work)
    assert work.finished
    assert queue.next() is None


def test_a_growing_work_waits_for_more_and_is_done_when_it_is_complete() -> None:
    queue, work = WorkQueue(), Work(growing=True)
    queue.push(work)
    for number in (1, 2):
        if number == 1:
            assert queue.next() == (work, [])
            queue.took(work)
        assert queue.next() is None
        work.add([sg(number)])
        queue.grown(work)
        queue.grown(work)
        assert queue.next() == (work, [sg(number)])
        assert queue.next() is None
        queue.took(work)
    assert queue.finished == []
    queue.complete(work)
    assert queue.finished == [work]
    assert work.finished


def test_a_work_that_is_complete_before_its_turn_is_done_after_it() -> None:
    queue, work = WorkQueue(), Work([sg(1)], growing=True)
    queue.push(work)
    queue.complete(work)
    assert queue.finished == []
    assert queue.next() == (work, [sg(1)])
    queue.took(work)
    assert queue.finished == [work]
    assert work.finished


def test_a_queue_counts_keys_that_have_not_had_their_turn() -> None:
    queue = WorkQueue()
    assert queue.keys == 0
    first, second = Work([sg(number) for number in range(BATCH + 5)]), Work([sg(1)])
    queue.push(first)
    queue.push(second)
    assert queue.keys == BATCH + 6
    assert queue.next() is not None
    assert queue.keys == 1  # The first work is out.
    queue.took(first)
    assert queue.keys == 6
