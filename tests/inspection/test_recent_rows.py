"""The recent rows: a bounded number, each once, and none from before a change."""

from __future__ import annotations

import numpy as np
import pytest

from service.inspection.baseline import Baseline
from service.inspection.recent_rows import RecentRows
from service.inspection.rows import Rows
from service.inspection.watched import Watched, WatchedNorm


def watched(channels: int) -> Watched:
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return Watched((WatchedNorm("bn", "input", zeros, ones, ones, 1e-5, 1000.0),))


def moments(count: int, channels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances and answers of so many rows."""
    random = np.random.default_rng(seed)
    shape = count, channels
    mean, var = random.normal(size=shape), random.uniform(0.5, 1.5, shape)
    return mean.astype(np.float32), var.astype(np.float32), random.integers(0, 3, count)


def digests(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


@pytest.mark.parametrize(
    ("channels", "kept", "needed"), [(4, 1024, 256), (20_000, 209, 209), (80_000, 64, 64)]
)
def test_as_many_rows_are_kept_as_32_mib_hold_up_to_1024(channels: int, kept: int, needed: int) -> None:
    recent = RecentRows(watched(channels))
    one = np.ones((1, channels), np.float32)
    for number in range(1100):
        recent.add(one, one, np.zeros(1, int), digests(number, 1))
    found = recent.snapshot()
    assert (len(found.rows), found.needed) == (kept, needed)
    assert all(row.moments.base is None for row in found.rows), "a view would keep all rows of its batch"


def test_the_oldest_go_first() -> None:
    recent = RecentRows(watched(4))
    for first in range(0, 1100, 10):
        mean, var, _ = moments(10, seed=first)
        recent.add(mean, var, np.arange(first, first + 10), digests(first, 10))
    assert [row.answer for row in recent.snapshot().rows] == list(range(76, 1100))


def test_a_row_that_comes_again_counts_once_however_many_windows_later() -> None:
    recent = RecentRows(watched(4))
    for _ in range(20):
        recent.add(*moments(16), digests(0, 16))
        recent.end_window(is_change=False)
    assert len(recent.snapshot().rows) == 16


def test_rows_that_are_not_finite_are_left_out() -> None:
    recent, (mean, var, answers) = RecentRows(watched(4)), moments(3)
    mean[0, 1], var[2, 3] = np.nan, np.inf
    recent.add(mean, var, answers, digests(0, 3))
    (row,) = recent.snapshot().rows
    np.testing.assert_array_equal(row.moments, [mean[1], var[1]])


def test_a_change_of_state_leaves_the_last_two_windows_only() -> None:
    recent = RecentRows(watched(4))
    for window in range(6):
        mean, var, _ = moments(5)
        recent.add(mean, var, np.full(5, window), digests(5 * window, 5))
        recent.end_window(is_change=window == 4)
    assert [row.answer for row in recent.snapshot().rows] == [3] * 5 + [4] * 5 + [5] * 5


def test_a_snapshot_stays_as_it_was_and_gives_the_baseline_of_its_rows() -> None:
    recent, rows = RecentRows(watched(4)), moments(100)
    recent.add(*rows, digests(0, 100))
    snapshot = recent.snapshot()
    recent.add(*moments(50, seed=1), digests(100, 50))
    found, expected = snapshot.baseline(3).arrays(), Baseline.of(Rows(*rows), watched(4), 3).arrays()
    assert expected["rows"] == 100
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
