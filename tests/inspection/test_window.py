"""Windows: which rows count, how many they are worth, and when that is enough."""

from __future__ import annotations

import numpy as np
import pytest

from service.inspection.hysteresis import Hysteresis
from service.inspection.quota import Quota, effective
from service.inspection.watched import Watched, WatchedNorm
from service.inspection.window import ENOUGH_ROWS, ROWS, Window

CHANNELS = 8


def watched() -> Watched:
    ones = np.ones(CHANNELS)
    return Watched((WatchedNorm("bn", "input", 0 * ones, ones, ones, 1e-5, 1000.0),))


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(0, 0.6, (count, CHANNELS)), np.full((count, CHANNELS), 0.64), np.zeros(count, int)


def offered(window: Window, count: int, client: int | None = None, first: int = 0) -> int:
    """How many of so many different rows the window admits."""
    numbers = range(first, first + count)
    return sum(window.quota.admits(b"%d" % n, n if client is None else client) for n in numbers)


# What counts


def test_an_exact_copy_counts_once() -> None:
    quota = Quota(ROWS)
    assert [quota.admits(b"frame", client) for client in range(5)] == [True, False, False, False, False]
    assert quota.offered == 5


def test_one_client_counts_for_a_quarter_of_what_was_offered_and_others_still_count() -> None:
    quota = Quota(ROWS)
    assert sum(quota.admits(b"%d" % n, 7) for n in range(ROWS)) == ROWS // 4
    assert quota.admits(b"another", 8)
    assert sum(quota.admits(b"%d" % n, 7) for n in range(ROWS, 4 * ROWS)) > ROWS // 2
    assert quota.offered == 4 * ROWS + 1


@pytest.mark.parametrize(("correlation", "worth"), [(0.0, 90), (0.5, 30), (0.8, 10)])
def test_rows_that_follow_each_other_closely_are_worth_fewer(correlation: float, worth: float) -> None:
    assert effective(90, correlation) == pytest.approx(worth)


# When it is enough


def test_a_window_is_complete_when_its_rows_were_offered_and_are_worth_enough() -> None:
    window = Window(watched())
    mean, var, classes = rows(ROWS)
    offered(window, ROWS - 1)
    window.add(mean[:-1], var[:-1], classes[:-1])
    assert not window.is_complete()
    offered(window, 1, first=ROWS)
    window.add(mean[-1:], var[-1:], classes[-1:])
    assert window.is_complete()
    assert window.rows == ROWS
    assert ROWS * 0.9 < window.effective_rows <= ROWS


def test_many_rows_of_few_that_count_are_not_enough() -> None:
    window = Window(watched())
    offered(window, 10 * ROWS, client=1)
    mean, var, classes = rows(ENOUGH_ROWS - 1)
    window.add(mean, var, classes)
    assert not window.is_complete()


def test_rows_that_resemble_their_neighbours_take_longer() -> None:
    window = Window(watched())
    offered(window, ROWS)
    mean, var, classes = rows(ROWS // 8)
    window.add(*(np.repeat(part, 8, axis=0) for part in (mean, var, classes)))
    assert window.rows == ROWS
    assert window.effective_rows < ROWS / 8
    assert not window.is_complete()


def test_a_mean_that_rows_disagree_on_takes_longer_than_one_that_they_agree_on() -> None:
    window = Window(watched())
    offered(window, ROWS)
    mean, _, classes = rows(80)
    window.add(mean / 0.6, np.zeros_like(mean), classes)  # a standard error of 1 / sqrt(80)
    assert window.effective_rows > ENOUGH_ROWS
    assert not window.is_complete()


def test_rows_that_are_no_numbers_are_left_out() -> None:
    window = Window(watched())
    mean, var, classes = rows(10)
    mean[3, 2], var[5, 0] = np.nan, np.inf
    window.add(mean, var, classes)
    assert window.rows == 8


# Hysteresis


def test_a_state_takes_three_windows_in_a_row() -> None:
    state = Hysteresis()
    heard = [2, 2, 0.9, 2, 2, 2, 0.8, 0.6, 0.6, 0.8, 0.6, 0.6, 0.6]
    changed = [state.hear(score, 1.0) for score in heard]
    assert [number for number, change in enumerate(changed) if change] == [5, 12]
    assert not state.is_up
