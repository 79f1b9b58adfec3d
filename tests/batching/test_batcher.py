"""The batcher loses nobody: every job that it takes is handed out or answered, exactly once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.batching.batcher import Batcher
from service.batching.job import Answer, Job, ModelKey
from service.batching.policy import Limits
from service.errors import DeadlinePassed, Draining, EngineFailed, FoldserveError, JobCancelled, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = ModelKey("a", 1), ModelKey("b", 1)
HANG_S = 60


class Clock:
    """Stands still until told otherwise."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Caller:
    """Hears what becomes of its jobs."""

    heard: list[Answer | FoldserveError] = field(default_factory=list)

    def job(self, rows: int = 1, key: ModelKey = A, **more: Any) -> Job:
        times: dict[str, Any] = {"arrived": Clock.now, **more}
        return Job(key, np.zeros((rows, 1, 1, 1), np.uint8), self.heard.append, **times)


def answer(job: Job) -> Answer:
    return Answer(np.zeros((len(job), 2), np.float32), 0.0, 0.0, len(job))


def a_batcher(max_waiting_rows: int = 10, max_delay_s: float = 0.0, max_batch: int = 4) -> Batcher:
    batcher = Batcher(Limits(max_waiting_rows, max_delay_s), Clock())
    batcher.admit(A, max_batch)
    batcher.admit(B, max_batch)
    return batcher


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> bool:
    for thread in threads:
        thread.join(HANG_S)
    return not any(thread.is_alive() for thread in threads)


# One step after the other


def test_jobs_are_counted_in_rows_until_they_are_handed_out() -> None:
    batcher, caller = a_batcher(), Caller()
    assert repr(batcher) == "<Batcher open, 0 jobs, 0 rows waiting>"
    jobs = [caller.job(rows) for rows in (1, 2, 3)]
    for job in jobs:
        batcher.submit(job)
    assert repr(batcher) == "<Batcher open, 3 jobs, 6 rows waiting>"
    assert batcher.next_batch() == tuple(jobs[:2])
    assert repr(batcher) == "<Batcher open, 1 jobs, 3 rows waiting>"
    assert batcher.waiting_rows == 3
    assert batcher.next_batch() == tuple(jobs[2:])
    assert repr(batcher) == "<Batcher open, 0 jobs, 0 rows waiting>"
    assert caller.heard == []


def test_a_job_that_would_overfill_the_queue_is_refused_and_leaves_it_as_it_was() -> None:
    batcher, caller = a_batcher(max_waiting_rows=10), Caller()
    batcher.submit(caller.job(8))
    with pytest.raises(QueueFull, match=r"^8 rows wait already; the queue holds 10$") as caught:
        batcher.submit(caller.job(3))
    assert caught.value.retry_after_s == 1
    assert repr(batcher) == "<Batcher open, 1 jobs, 8 rows waiting>"
    batcher.submit(caller.job(2))
    assert repr(batcher) == "<Batcher open, 2 jobs, 10 rows waiting>"
    assert caller.heard == []


@pytest.mark.parametrize(
    ("observed", "seconds"),
    [
        ([], 1),
        ([(1, 1.0)], 10),
        ([(100, 1.0)], 1),
        ([(3, 1.0)], 4),
        ([(1, 0.0)], 1),
        ([(1, 1.0), (10, 1.0)], 6),
    ],
)
def test_retry_after_is_the_time_that_the_queue_takes_at_the_rate_of_late(
    observed: list[tuple[int, float]], seconds: int
) -> None:
    batcher, caller = a_batcher(max_waiting_rows=10), Caller()
    for rows, took in observed:
        batcher.observe(rows, took)
    batcher.submit(caller.job(10))
    with pytest.raises(QueueFull) as caught:
        batcher.submit(caller.job())
    assert caught.value.retry_after_s == seconds
    assert isinstance(caught.value.retry_after_s, int)


def test_a_closed_batcher_takes_nothing_and_hands_out_what_it_has() -> None:
    batcher, caller = a_batcher(max_batch=1), Caller()
    jobs = [caller.job(), caller.job()]
    for job in jobs:
        batcher.submit(job)
    batcher.close()
    assert repr(batcher) == "<Batcher closed, 2 jobs, 2 rows waiting>"
    with pytest.raises(Draining):
        batcher.submit(caller.job())
    assert [batcher.next_batch() for _ in range(4)] == [(jobs[0],), (jobs[1],), (), ()]
    batcher.close()
    assert repr(batcher) == "<Batcher closed, 0 jobs, 0 rows waiting>"


def test_a_closed_batcher_waits_for_no_company() -> None:
    batcher, caller = a_batcher(max_delay_s=3600), Caller()
    job = caller.job()
    batcher.submit(job)
    batcher.close()
    assert batcher.next_batch() == (job,)


def test_who_is_cancelled_or_late_hears_why_and_is_never_handed_out() -> None:
    batcher = a_batcher()
    gone, late, live = Caller(), Caller(), Caller()
    batcher.submit(gone.job(cancelled=True))
    batcher.submit(late.job(deadline=Clock.now))
    job = live.job()
    batcher.submit(job)
    assert batcher.next_batch() == (job,)
    assert [type(heard) for heard in gone.heard] == [JobCancelled]
    assert [type(heard) for heard in late.heard] == [DeadlinePassed]
    assert live.heard == []
    assert repr(batcher) == "<Batcher open, 0 jobs, 0 rows waiting>"


def test_a_job_that_is_cancelled_while_it_waits_is_dropped_at_the_next_decision() -> None:
    batcher, caller = a_batcher(max_batch=1), Caller()
    first, second, third = (caller.job() for _ in range(3))
    for job in (first, second, third):
        batcher.submit(job)
    assert batcher.next_batch() == (first,)
    second.cancelled = True
    assert batcher.next_batch() == (third,)
    assert [str(heard) for heard in caller.heard] == ["the job was cancelled while it waited"]


def test_a_closed_batcher_of_dead_jobs_answers_them_and_ends() -> None:
    batcher, caller = a_batcher(), Caller()
    batcher.submit(caller.job(cancelled=True))
    batcher.close()
    assert batcher.next_batch() == ()
    assert len(caller.heard) == 1


def test_fail_all_answers_everybody_with_the_reason_and_closes() -> None:
    batcher, callers = a_batcher(), [Caller(), Caller()]
    for caller in callers:
        batcher.submit(caller.job(2))
    why = EngineFailed("the engine stopped")
    batcher.fail_all(why)
    assert [caller.heard for caller in callers] == [[why], [why]]
    assert repr(batcher) == "<Batcher closed, 0 jobs, 0 rows waiting>"
    with pytest.raises(Draining):
        batcher.submit(callers[0].job())
    assert batcher.next_batch() == ()


def test_a_reply_may_come_back_to_the_batcher() -> None:
    """Replies are made without the lock: one that submits again does not hang."""
    batcher, caller = a_batcher(), Caller()
    again: list[Job] = []

    def resubmit(_: Answer | FoldserveError) -> None:
        again.append(caller.job())
        batcher.submit(again[0])

    batcher.submit(Job(A, np.zeros((1, 1, 1, 1), np.uint8), resubmit, Clock.now, cancelled=True))
    batches: list[tuple[Job, ...]] = []
    thread = in_thread(lambda: batches.append(batcher.next_batch()))
    assert ended(thread)
    assert batches == [tuple(again)]


# From other threads


def test_an_idle_engine_wakes_for_the_first_job() -> None:
    batcher, caller = a_batcher(), Caller()
    batches: list[tuple[Job, ...]] = []
    thread = in_thread(lambda: batches.append(batcher.next_batch()))
    job = caller.job()
    batcher.submit(job)
    assert ended(thread)
    assert batches == [(job,)]


def test_an_idle_engine_wakes_when_the_batcher_is_closed() -> None:
    batcher = a_batcher()
    batches: list[tuple[Job, ...]] = []
    thread = in_thread(lambda: batches.append(batcher.next_batch()))
    batcher.close()
    assert ended(thread)
    assert batches == [()]


@pytest.mark.parametrize("end", ["a full batch", "closing"])
def test_waiting_for_company_ends_early_with(end: str) -> None:
    batcher, caller = a_batcher(max_delay_s=3600, max_batch=2), Caller()
    first, second = caller.job(), caller.job()
    batches: list[tuple[Job, ...]] = []
    batcher.submit(first)
    thread = in_thread(lambda: batches.append(batcher.next_batch()))
    if end == "closing":
        batcher.close()
    else:
        batcher.submit(second)
    assert ended(thread)
    assert batches == [(first,) if end == "closing" else (first, second)]


class Crowd:
    """Four submitters, a canceller, an engine and one who ends it, all at once."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.batcher = Batcher(Limits(max_waiting_rows=40, max_delay_s=0.0005 * (seed % 2)))
        self.batcher.admit(A, 8)
        self.batcher.admit(B, 3)
        self.heard: Counter[int] = Counter()
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.batches: list[tuple[Job, ...]] = []
        self._cancellable: list[Job] = []
        self._lock = threading.Lock()
        self._late = threading.Event()

    def submit(self, submitter: int) -> None:
        dice = random.Random(f"{self.seed}/{submitter}")
        for number in range(300):
            job = self._job(dice, identity := submitter * 1000 + number)
            try:
                self.batcher.submit(job)
            except (QueueFull, Draining):
                self.refused.append(identity)
            else:
                self.accepted.append(identity)
                self._cancellable += [job] * (dice.random() < 0.3)
            if (submitter, number) == (0, 250):
                self._late.set()

    def cancel(self) -> None:
        while not self._late.is_set():
            if self._cancellable:
                self._cancellable.pop().cancelled = True

    def compute(self) -> None:
        while batch := self.batcher.next_batch():
            self.batches.append(batch)
            for job in batch:
                job.reply(answer(job))

    def end(self, ending: str) -> None:
        self._late.wait(HANG_S)
        if ending == "close":
            self.batcher.close()
        else:
            self.batcher.fail_all(EngineFailed("the engine stopped"))

    def _job(self, dice: random.Random, identity: int) -> Job:
        def reply(_: Answer | FoldserveError) -> None:
            with self._lock:
                self.heard[identity] += 1

        rows = np.zeros((dice.randint(1, 10), 1, 1, 1), dice.choice(["uint8", "float32"]))
        deadline = dice.choice([None, None, 0.0, 1e12])
        return Job(dice.choice([A, B]), rows, reply, arrived=0.0, deadline=deadline)


@pytest.mark.parametrize("ending", ["close", "fail_all"])
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_and_nobody_is_answered_twice(seed: int, ending: str) -> None:
    crowd = Crowd(seed)
    works: list[Callable[[], None]] = [crowd.cancel, crowd.compute, partial(crowd.end, ending)]
    works += [partial(crowd.submit, number) for number in range(4)]
    assert ended(*map(in_thread, works))
    assert len(crowd.accepted) + len(crowd.refused) == 1200
    assert crowd.heard == Counter(crowd.accepted), "each accepted job is answered once, a refused one never"
    computed = [job for batch in crowd.batches for job in batch]
    assert len(computed) == len(set(computed))
    assert all(len({job.lane for job in batch}) == 1 for batch in crowd.batches)
    assert repr(crowd.batcher) == "<Batcher closed, 0 jobs, 0 rows waiting>"
