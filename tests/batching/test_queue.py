"""The queue hands every row out once, in order, or gives its job up; it loses none."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.batching.job import Job, Lane, Part
from service.batching.policy import Decision, Limits
from service.batching.queue import Queue
from service.errors import UnknownModel
from tests.batching.jobs import NOW, A, B, job

if TYPE_CHECKING:
    from collections.abc import Sequence


def a_queue(*jobs: Job, max_batch: int = 4, max_delay_s: float = 0.0) -> Queue[Job]:
    queue: Queue[Job] = Queue(Limits(1000, max_delay_s))
    for model in (A, B):
        queue.admit(model, max_batch)
    for each in jobs:
        queue.submit(each)
    return queue


def ran(decision: Decision[Job]) -> list[tuple[Job, int, int]]:
    return [(part.job, part.start, part.stop) for part in decision.run]


# Sentences


def test_rows_are_counted_until_they_are_handed_out() -> None:
    queue = a_queue()
    assert repr(queue) == "<Queue open, 0 jobs, 0 rows waiting>"
    jobs = [job(rows) for rows in (1, 2, 3)]
    for each in jobs:
        queue.submit(each)
    assert repr(queue) == "<Queue open, 3 jobs, 6 rows waiting>"
    assert ran(queue.next(NOW)) == [(jobs[0], 0, 1), (jobs[1], 0, 2)]
    assert repr(queue) == "<Queue open, 1 jobs, 3 rows waiting>"
    assert queue.waiting_rows == 3
    assert ran(queue.next(NOW)) == [(jobs[2], 0, 3)]
    assert repr(queue) == "<Queue open, 0 jobs, 0 rows waiting>"
    assert queue.next(NOW) == Decision()


def test_with_its_model_the_jobs_that_wait_for_it_leave_and_no_other() -> None:
    gone, stays = [job(2, model=A), job(3, model=A, dtype="float32")], job(1, model=B)
    queue = a_queue(*gone, stays)
    queue.dismiss(A)
    assert repr(queue) == "<Queue open, 1 jobs, 1 rows waiting>"
    assert all(each.cancelled for each in gone)
    assert not queue.withdraw(gone[0]), "its worker is seen to be gone after that"
    assert ran(queue.next(NOW)) == [(stays, 0, 1)]
    with pytest.raises(UnknownModel):
        queue.submit(job(1, model=A))


def test_a_job_larger_than_a_batch_leaves_in_parts_and_company_joins_the_last() -> None:
    large, small = job(9), job(2, arrived=NOW + 1)
    queue = a_queue(large, small)
    assert queue.next(NOW).run == (Part(large, 0, 4),)
    assert (large.taken, repr(queue)) == (4, "<Queue open, 2 jobs, 7 rows waiting>")
    assert queue.next(NOW).run == (Part(large, 4, 8),)
    assert queue.next(NOW).run == (Part(large, 8, 9), Part(small, 0, 2))
    assert (large.remaining, repr(queue)) == (0, "<Queue open, 0 jobs, 0 rows waiting>")


@pytest.mark.parametrize("end", ["its deadline passes", "it is withdrawn", "it is cancelled"])
def test_between_its_parts_a_job_is_given_up_when(end: str) -> None:
    large, small = job(9, deadline=NOW + 1), job(2)
    queue = a_queue(large, small)
    queue.next(NOW)
    if end == "it is withdrawn":
        assert queue.withdraw(large)
    large.cancelled |= end == "it is cancelled"
    decision = queue.next(NOW + 1)
    assert decision.run == (Part(small, 0, 2),)
    assert decision.dropped == (() if end == "it is withdrawn" else (large,))
    assert repr(queue) == "<Queue open, 0 jobs, 0 rows waiting>"


def test_jobs_are_kept_in_order_of_arrival_though_they_come_slightly_out_of_it() -> None:
    jobs = [job(arrived=NOW + late) for late in (3, 1, 2, 0, 1)]
    order = [jobs[place] for place in (3, 1, 4, 2, 0)]
    assert [part.job for part in a_queue(*jobs, max_batch=9).next(NOW).run] == order


def test_a_withdrawn_job_leaves_at_once_and_the_others_keep_their_order() -> None:
    jobs = [job(2) for _ in range(4)]
    queue = a_queue(*jobs, max_batch=9)
    assert queue.withdraw(jobs[1])
    assert jobs[1].cancelled
    assert queue.waiting_rows == 6
    assert queue.next(NOW) == Decision(run=tuple(Part(jobs[place], 0, 2) for place in (0, 2, 3)))


@pytest.mark.parametrize("others", [0, 1])
def test_a_job_that_was_fully_taken_cannot_be_withdrawn(others: int) -> None:
    taken = job(4)
    queue = a_queue(taken, *[job(1) for _ in range(others)])
    queue.next(NOW)
    assert not queue.withdraw(taken)
    assert taken.cancelled
    assert queue.waiting_rows == others


def test_a_job_cannot_be_withdrawn_twice_or_without_having_come() -> None:
    some = job()
    queue = a_queue(some)
    assert [queue.withdraw(some), queue.withdraw(some), queue.withdraw(job(model=B))] == [True, False, False]
    assert queue.waiting_rows == 0


def test_who_was_dropped_has_left() -> None:
    late, live = job(4, deadline=NOW), job(1)
    queue = a_queue(late, live)
    assert queue.next(NOW) == Decision(run=(Part(live, 0, 1),), dropped=(late,))
    assert not queue.withdraw(late)
    assert repr(queue) == "<Queue open, 0 jobs, 0 rows waiting>"


def test_who_is_dropped_from_among_those_that_wait_leaves_them_in_order() -> None:
    jobs = [job(), job(deadline=NOW), job()]
    queue = a_queue(*jobs, max_delay_s=2.0)
    assert queue.next(NOW) == Decision(dropped=(jobs[1],), wait_s=2.0)
    assert queue.next(NOW + 2).run == (Part(jobs[0], 0, 1), Part(jobs[2], 0, 1))


def test_a_queue_that_waits_for_company_stops_waiting_once_it_is_closed() -> None:
    some = job()
    queue = a_queue(some, max_delay_s=2.0)
    assert queue.next(NOW) == Decision(wait_s=2.0)
    queue.close()
    assert repr(queue) == "<Queue closed, 1 jobs, 1 rows waiting>"
    assert queue.next(NOW) == Decision(run=(Part(some, 0, 1),))


def test_moments_are_handed_out_only_when_they_are_asked_for_and_a_row_at_a_time() -> None:
    asked, predicted = job(2, wanted="moments", arrived=NOW - 9), job(2)
    queue = a_queue(asked, predicted)
    assert queue.next(NOW).run == (Part(predicted, 0, 2),)
    assert queue.next(NOW) == Decision()
    assert (queue.has("answers"), queue.has("moments"), queue.waiting_rows) == (False, True, 2)
    assert queue.next(NOW, "moments").run == (Part(asked, 0, 1),)
    assert queue.next(NOW, "moments").run == (Part(asked, 1, 2),)
    assert queue.next(NOW, "moments") == Decision()
    assert not queue.has("moments")
    assert repr(queue) == "<Queue open, 0 jobs, 0 rows waiting>"


def test_moments_wait_for_no_company() -> None:
    asked, predicted = job(wanted="moments"), job()
    queue = a_queue(asked, predicted, max_delay_s=2.0)
    assert queue.next(NOW) == Decision(wait_s=2.0)
    assert queue.next(NOW, "moments").run == (Part(asked, 0, 1),)


def test_who_wants_moments_leaves_with_its_model_its_deadline_and_its_caller() -> None:
    gone, late, withdrawn = (job(2, model=model, wanted="moments") for model in (A, B, B))
    late.deadline = NOW
    queue = a_queue(gone, late, withdrawn)
    queue.dismiss(A)
    assert gone.cancelled
    assert queue.withdraw(withdrawn)
    assert queue.next(NOW, "moments") == Decision(dropped=(late,))
    assert queue.waiting_rows == 0
    with pytest.raises(UnknownModel):
        queue.submit(job(1, model=A, wanted="moments"))


def test_a_job_that_comes_back_waits_with_what_is_left_of_it() -> None:
    """As one does whose batch failed beside others."""
    again = job(9, taken=8)
    queue = a_queue(again)
    assert queue.waiting_rows == 1
    assert queue.next(NOW).run == (Part(again, 8, 9),)
    assert queue.waiting_rows == 0


def test_a_job_of_a_model_that_was_not_admitted_is_refused() -> None:
    queue = a_queue()
    with pytest.raises(UnknownModel, match=r"^no model has the number 2$"):
        queue.submit(job(model=2))
    assert queue.waiting_rows == 0


# Everything that may happen, in any order

LANES = [Lane(A, "uint8"), Lane(A, "float32"), Lane(B, "uint8")]
MAX_BATCH = {A: 4, B: 3}
SOON = st.sampled_from([0.0, 0.1, 0.5, 1.0])


class AnyOrder(RuleBasedStateMachine):
    """Beside the queue stands, for every job, which of its rows were handed out, and how it ended."""

    @initialize(delay=st.sampled_from([0.0, 0.3, 2.0]))
    def begin(self, delay: float) -> None:
        self.now = NOW
        self.delay = delay
        self.queue: Queue[Job] = Queue(Limits(1000, delay))
        for key, most in MAX_BATCH.items():
            self.queue.admit(key, most)
        self.came: list[Job] = []
        self.out: dict[Job, list[int]] = defaultdict(list)
        self.ended: dict[Job, str] = {}

    @rule(lane=st.sampled_from(LANES), rows=st.integers(1, 11), age=SOON, patience=SOON, long=st.booleans())
    def submit(self, lane: Lane, rows: int, age: float, patience: float, long: bool) -> None:
        deadline = self.now + (60 if long else patience)
        self.came.append(Job(lane, rows, self.now - age, deadline))
        self.queue.submit(self.came[-1])

    @precondition(lambda self: self.came)
    @rule(draw=st.randoms(use_true_random=False), by_flag=st.booleans())
    def cancel(self, draw: Any, by_flag: bool) -> None:
        chosen = draw.choice(self.came)
        if by_flag:
            chosen.cancelled = True
        elif self.queue.withdraw(chosen):
            assert chosen not in self.ended, "it still waited"
            self.ended[chosen] = "withdrawn"
        else:
            assert chosen in self.ended, "it waited no more"

    @rule(seconds=SOON)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def close(self) -> None:
        self.queue.close()
        self.delay = 0.0

    @rule()
    def next(self) -> None:
        waiting = self.waiting()
        decision = self.queue.next(self.now)
        for dropped in decision.dropped:
            assert dropped in waiting
            assert dropped.is_dead(self.now)
            self.ended[dropped] = "dropped"
        self.take(decision.run, waiting)
        if not decision.run:
            live = [each for each in waiting if not each.is_dead(self.now)]
            assert bool(live) == (decision.wait_s is not None)
            assert not live or self.delay > 0, "without a delay, what waits runs"
            assert len(decision.dropped) + len(live) == len(waiting)

    def take(self, run: Sequence[Part[Job]], waiting: Sequence[Job]) -> None:
        if not run:
            return
        lane = run[0].job.lane
        assert sum(part.stop - part.start for part in run) <= MAX_BATCH[lane.model]
        older = [each for each in waiting if each.lane == lane and not each.is_dead(self.now)]
        assert [part.job for part in run] == older[: len(run)], "one lane, in order, nobody overtaken"
        for taken, start, stop in run:
            self.out[taken] += range(start, stop)
            if len(self.out[taken]) == taken.rows:
                self.ended[taken] = "done"

    def waiting(self) -> list[Job]:
        return sorted((each for each in self.came if each not in self.ended), key=lambda each: each.arrived)

    @invariant()
    def every_row_was_handed_out_once_and_in_order_or_still_waits(self) -> None:
        for each, rows in self.out.items():
            assert rows == list(range(each.taken))
        waiting = self.waiting()
        left = sum(each.rows - len(self.out[each]) for each in waiting)
        assert self.queue.waiting_rows == left
        assert f", {len(waiting)} jobs, {left} rows waiting>" in repr(self.queue)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.queue.close()
        self.delay = 0.0
        for _ in range(sum(each.rows for each in self.came) + 1):
            self.next()
        assert set(self.ended) == set(self.came), "every job ends"
        assert all(len(self.out[each]) == each.rows for each, end in self.ended.items() if end == "done")


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
test_nothing_is_lost_or_handed_out_twice_whatever_happens = AnyOrder.TestCase
