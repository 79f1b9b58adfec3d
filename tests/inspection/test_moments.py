"""Moments: means, variances and their standard errors, with rows as the sample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]  # it ships no types; scikit-learn brings it

from service.inspection.moments import Moments


def pixels(rows: int = 50, channels: int = 3, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    """`[N, C, 5, 7]`: every row has a brightness of its own, so that its pixels are no independent draws."""
    random = np.random.default_rng(seed)
    brightness = random.normal(size=(rows, channels, 1, 1))
    return offset + brightness + random.gamma(2.0, 0.5, (rows, channels, 5, 7))


def moments(x: np.ndarray, pivot: float = 0.0, parts: int = 1) -> Moments:
    made = Moments(np.full(x.shape[1], pivot))
    for part in np.array_split(x, parts):
        made.add(part.mean((2, 3)), part.var((2, 3)))
    return made


def test_the_mean_and_variance_are_those_of_all_pixels() -> None:
    x = pixels()
    found = moments(x).estimate()
    np.testing.assert_allclose(found.mean, x.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.var, x.var((0, 2, 3)), rtol=1e-12)


def test_the_error_of_the_mean_is_that_of_the_rows_means_as_scipy_has_it() -> None:
    x = pixels()
    found = moments(x).estimate()
    np.testing.assert_allclose(
        np.sqrt(found.spread_of_mean / len(x)), stats.sem(x.mean((2, 3)), axis=0), rtol=1e-12
    )


def test_the_error_of_the_variance_is_what_drawing_the_rows_anew_shows() -> None:
    x = pixels(400, 1)
    found = moments(x).estimate()
    drawn = stats.bootstrap(
        (np.arange(len(x)),), lambda rows: x[rows].var(), n_resamples=999, vectorized=False, rng=1
    )
    assert np.sqrt(found.spread_of_var[0] / len(x)) == pytest.approx(drawn.standard_error, rel=0.1)


def test_a_mean_far_from_0_takes_nothing_from_the_variance() -> None:
    x = pixels(offset=1e6)
    found = moments(x, pivot=1e6).estimate()
    np.testing.assert_allclose(found.var, (x - 1e6).var((0, 2, 3)), rtol=1e-9)
    assert (found.spread_of_var > 0).all()


@pytest.mark.parametrize("parts", [2, 7, 50])
def test_rows_that_come_in_parts_count_as_those_that_come_at_once(parts: int) -> None:
    x = pixels()
    weight = np.array([1.0, 2.0, 0.5])
    whole, piecewise = moments(x), moments(x, parts=parts)
    np.testing.assert_allclose(piecewise.sums, whole.sums)
    assert piecewise.rows == whole.rows == 50
    assert piecewise.autocorrelation(weight) == pytest.approx(whole.autocorrelation(weight))


def test_the_autocorrelation_is_numpys_for_one_channel() -> None:
    m = np.cumsum(np.random.default_rng(0).normal(size=200))
    made = Moments(np.array([3.0]))
    made.add(m[:, None], np.ones((200, 1)))
    centred = m - m.mean()
    assert made.autocorrelation(np.ones(1)) == pytest.approx(centred[1:] @ centred[:-1] / (centred @ centred))


def test_rows_that_come_four_times_each_show_it() -> None:
    x = pixels(100, 20)
    assert moments(x).autocorrelation(np.ones(20)) < 0.05
    assert moments(np.repeat(x, 4, axis=0)).autocorrelation(np.ones(20)) == pytest.approx(0.75, abs=0.05)


def test_rows_that_alternate_are_taken_for_independent() -> None:
    x = pixels(100, 1)
    x[::2] += 10
    assert moments(x).autocorrelation(np.ones(1)) == 0.0
