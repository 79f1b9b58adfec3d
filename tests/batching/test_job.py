"""A job is so many rows of one lane; it says what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from service.batching.job import Answer, Job, Lane, Part
from service.batching.policy import Limits
from service.batching.queue import Queue
from tests.batching.jobs import NOW, A, B, job


def test_a_job_says_what_it_is_and_what_became_of_it() -> None:
    some = job(3, 2)
    assert repr(some) == "<Job of model 2, uint8, 3 rows>"
    some.taken = 2
    assert (repr(some), some.remaining) == ("<Job of model 2, uint8, 3 rows, 2 taken>", 1)
    some.cancelled = True
    assert repr(some) == "<Job of model 2, uint8, 3 rows, 2 taken, cancelled>"


def test_a_lane_is_a_loaded_model_and_a_dtype() -> None:
    lanes = {job(model=model, dtype=d).lane for model in (A, 2, B) for d in ("uint8", "float32")}
    assert len(lanes) == 6
    assert Lane(A, "uint8") in lanes


def test_jobs_that_say_the_same_are_not_the_same_job() -> None:
    first, second = job(), job()
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_is_dead_from_its_deadline_on_or_once_it_is_cancelled(cancelled: bool) -> None:
    some = job(deadline=NOW, cancelled=cancelled)
    assert [some.is_dead(now) for now in (NOW - 1, NOW, NOW + 1)] == [cancelled, True, True]


def test_an_answer_is_a_value() -> None:
    answer = Answer(np.zeros((1, 2), np.float32), queue_s=0.1, compute_s=0.2, batch_rows=3)
    with pytest.raises(AttributeError):
        answer.batch_rows = 4  # type: ignore[misc]  # that it is frozen is the point


def test_who_queues_jobs_may_hang_their_own_on_them() -> None:
    @dataclass(eq=False)
    class Run(Job):
        first_slot: int = field(kw_only=True)

    queue: Queue[Run] = Queue(Limits(8))
    queue.admit(A, 4)
    run = Run(Lane(A, "uint8"), 2, arrived=NOW, deadline=NOW + 1, first_slot=7)
    queue.submit(run)
    part = queue.next(NOW).run[0]
    assert part == Part(run, 0, 2)
    assert part.job.first_slot == 7
