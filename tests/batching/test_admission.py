"""A request is refused before its work is done, where that is known to be in vain; else it is taken."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.admission import Load, Rate, refusal
from service.batching.policy import Limits
from service.errors import QueueFull

LIMITS = Limits(max_waiting_rows=8)


def test_rows_that_fit_are_taken() -> None:
    assert refusal(Load(6, 0.1), 2, 0.01, 1.0, LIMITS) is None


def test_rows_that_do_not_fit_are_refused_with_the_numbers() -> None:
    full = refusal(Load(6, 0.1), 3, 0.01, 1.0, LIMITS)
    assert isinstance(full, QueueFull)
    assert (str(full), full.retry_after_s) == ("6 rows wait already; the queue holds 8", 1)


@pytest.mark.parametrize(
    ("waiting", "work_s", "rows", "seconds"),
    [
        (8, 8.0, 1, 1),
        (8, 8.0, 4, 4),
        (8, 9.0, 4, 5),
        (8, 0.0, 4, 1),
        (6, 60.0, 4, 20),
        (6, 60.0, 400, 60),
    ],
)
def test_retry_after_is_the_time_until_the_queue_has_room(
    waiting: int, work_s: float, rows: int, seconds: int
) -> None:
    full = refusal(Load(waiting, work_s), rows, 0.01, 100.0, LIMITS)
    assert full is not None
    assert full.retry_after_s == seconds


def test_a_request_that_would_be_late_before_its_turn_is_refused_at_once() -> None:
    late = refusal(Load(6, 3.14), 2, 0.25, 0.5, LIMITS)
    assert isinstance(late, QueueFull)
    assert str(late) == "the queue needs about 3.1 s, this request has 0.5 s"
    assert late.retry_after_s == 4, "3.14 s of work, and its own half second, less the half that it has"


def test_a_request_is_not_refused_for_its_own_work() -> None:
    assert refusal(Load(6, 0.5), 2, 100.0, 0.5, LIMITS) is None


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_where_nothing_waits_nobody_is_refused(rows: int, work: float, each: float, has: float) -> None:
    """What is computed just now is work too, but whoever comes next is next."""
    assert refusal(Load(0, work), rows, each, has, LIMITS) is None


def test_every_small_case_is_refused_for_the_right_reason() -> None:
    for waiting, rows, work_s, timeout_s in product(range(1, 10), range(1, 10), (0.0, 1.0, 2.0), (1.0, 1.5)):
        why = refusal(Load(waiting, work_s), rows, 0.1, timeout_s, LIMITS)
        said = "" if why is None else str(why)
        assert ("wait already" in said) == (waiting + rows > 8)
        assert ("the queue needs" in said) == (waiting + rows <= 8 and work_s > timeout_s)
        assert why is None or (why.retry_after_s or 0) >= 1


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
