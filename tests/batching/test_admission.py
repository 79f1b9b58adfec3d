"""A request is refused before its work is done, where that is known to be in vain; else it is taken."""

from __future__ import annotations

from collections import deque
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.admission import Load, Rate, refusal
from service.batching.policy import Limits
from service.errors import InputTooLarge, QueueFull

LIMITS = Limits(max_waiting_rows=8)


def rate(seconds_per_row: float, max_batch: int = 4) -> Rate:
    return Rate(seconds_per_row, max_batch)


def refused(load: Load, rows: int, each: Rate, timeout_s: float) -> QueueFull:
    why = refusal(load, rows, each, timeout_s, LIMITS)
    assert isinstance(why, QueueFull)
    return why


def test_rows_that_fit_are_taken() -> None:
    assert refusal(Load(6, 0.1), 2, rate(0.01), 1.0, LIMITS) is None


def test_rows_that_do_not_fit_are_refused_with_the_numbers() -> None:
    full = refused(Load(6, 0.1), 3, rate(0.01), 1.0)
    assert (str(full), full.retry_after_s) == ("6 rows wait already; the queue holds 8", 1)


@pytest.mark.parametrize("load", [Load(0, 0.0), Load(0, 3.0), Load(8, 8.0)])
def test_more_rows_than_the_queue_ever_holds_are_too_many(load: Load) -> None:
    why = refusal(load, 9, rate(0.01), 100.0, LIMITS)
    assert isinstance(why, InputTooLarge)
    assert str(why) == "9 rows; the queue holds 8"


@pytest.mark.parametrize(
    ("waiting", "work_s", "rows", "seconds"),
    [(8, 8.0, 1, 1), (8, 8.0, 4, 4), (8, 9.0, 4, 5), (8, 0.0, 4, 1), (6, 60.0, 4, 20), (6, 60.0, 8, 60)],
)
def test_retry_after_is_the_time_until_the_queue_has_room(
    waiting: int, work_s: float, rows: int, seconds: int
) -> None:
    assert refused(Load(waiting, work_s), rows, rate(0.01), 100.0).retry_after_s == seconds


def test_a_request_that_would_be_late_before_its_turn_is_refused_at_once() -> None:
    late = refused(Load(6, 3.14), 2, rate(0.25), 0.5)
    assert str(late) == "the queue needs about 4.1 s, this request has 0.5 s"
    assert late.retry_after_s == 4, "3.14 s of work, and a batch of a second, less the half that it has"


@pytest.mark.parametrize(
    ("waiting", "rows", "own_s"),
    [(1, 1, 0.2), (2, 1, 0.3), (6, 1, 0.4), (6, 2, 0.4), (1, 6, 0.6)],
    ids=["the row before it", "both before it", "a full batch", "which it is in", "its own two batches"],
)
def test_the_batch_that_a_request_will_be_in_takes_time_too(waiting: int, rows: int, own_s: float) -> None:
    assert refusal(Load(waiting, 1.0), rows, rate(0.1), 1.0 + own_s + 1e-6, LIMITS) is None
    assert refusal(Load(waiting, 1.0), rows, rate(0.1), 1.0 + own_s - 1e-6, LIMITS) is not None


def test_what_is_computed_now_takes_time_though_nothing_waits() -> None:
    assert refusal(Load(0, 20.0), 1, rate(0.01), 30.0, LIMITS) is None
    assert refused(Load(0, 20.0), 1, rate(0.01), 0.1).retry_after_s == 20


@given(st.integers(1, 8), st.floats(0, 100), st.floats(0, 100))
def test_an_engine_with_nothing_to_do_takes_what_fits(rows: int, each: float, has: float) -> None:
    """Whatever is believed of the rate, which may be wrong, and which only answers put right."""
    assert refusal(Load(0, 0.0), rows, rate(each), has, LIMITS) is None


def test_every_small_case_is_refused_for_the_right_reason() -> None:
    for waiting, rows, work_s, timeout_s in product(range(1, 10), range(1, 9), (0.0, 1.0, 2.0), (1.0, 1.5)):
        why = refusal(Load(waiting, work_s), rows, rate(0.1), timeout_s, LIMITS)
        said = "" if why is None else str(why)
        needed_s = work_s + 0.1 * max(rows, min(4, waiting + rows))
        assert ("wait already" in said) == (waiting + rows > 8)
        assert ("the queue needs" in said) == (waiting + rows <= 8 and work_s > 0 and needed_s > timeout_s)
        assert why is None or (isinstance(why, QueueFull) and (why.retry_after_s or 0) >= 1)


def test_twice_as_many_requests_as_can_be_computed_leave_all_the_time_to_answers_that_are_in_time() -> None:
    """In virtual time: a row every 8 ms for an engine that needs 16, in batches of up to 8."""
    each_s, timeout_s, limits = 0.016, 2.0, Limits(max_waiting_rows=2048)
    queue: deque[float] = deque()
    now, free_at, in_time, late = 0.0, 0.0, 0, 0
    for number in range(10_000):
        now = number * each_s / 2
        while queue and free_at <= now:
            batch = [queue.popleft() for _ in range(min(8, len(queue)))]
            begun = max(free_at, batch[-1])
            batch += [queue.popleft() for _ in range(8 - len(batch)) if queue and queue[0] <= begun]
            free_at = begun + len(batch) * each_s
            in_time += sum(free_at - arrived <= timeout_s for arrived in batch)
            late += sum(free_at - arrived > timeout_s for arrived in batch)
        work_s = len(queue) * each_s + max(0.0, free_at - now)
        if refusal(Load(len(queue), work_s), 1, rate(each_s, 8), timeout_s, limits) is None:
            queue.append(now)
    assert late == 0
    assert in_time > 0.95 * now / each_s


# The rate


def test_the_rate_starts_from_what_was_measured() -> None:
    rate = Rate(0.002, max_batch=8)
    assert (rate.seconds_per_row, repr(rate)) == (0.002, "<Rate 2 ms a row>")


@pytest.mark.parametrize("batch_rows", [4, 5, 8])
def test_a_batch_that_is_half_full_moves_the_rate_both_ways(batch_rows: int) -> None:
    for true in (0.001, 0.004):
        rate = Rate(0.002, max_batch=8)
        rate.observe(batch_rows, batch_rows, batch_rows * true)
        assert rate.seconds_per_row == pytest.approx(0.9 * 0.002 + 0.1 * true)
        for _ in range(200):
            rate.observe(batch_rows, batch_rows, batch_rows * true)
        assert rate.seconds_per_row == pytest.approx(true)


@pytest.mark.parametrize("batch_rows", [1, 2, 3])
def test_a_small_batch_can_only_lower_the_rate(batch_rows: int) -> None:
    rate = Rate(0.002, max_batch=8)
    rate.observe(batch_rows, batch_rows, batch_rows * 0.004)
    assert rate.seconds_per_row == 0.002
    rate.observe(batch_rows, batch_rows, batch_rows * 0.001)
    assert rate.seconds_per_row == pytest.approx(0.0019)


@pytest.mark.parametrize("max_batch", [1, 2])
def test_one_row_is_half_of_two(max_batch: int) -> None:
    rate = Rate(0.002, max_batch)
    rate.observe(1, 1, 0.004)
    assert rate.seconds_per_row > 0.002


def test_a_batch_counts_once_however_many_answers_it_gave() -> None:
    whole, split = Rate(0.002, max_batch=8), Rate(0.002, max_batch=8)
    whole.observe(8, 8, 0.008)
    for rows in (1, 5, 2):
        split.observe(rows, 8, 0.008)
    assert split.seconds_per_row == pytest.approx(whole.seconds_per_row)
