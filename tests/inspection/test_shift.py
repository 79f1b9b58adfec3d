"""Shift and scores: how far a sample lies from a reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from service.inspection.moments import Estimate
from service.inspection.shift import MOST, Reference, scores, shift
from service.inspection.watched import Watched, WatchedNorm, parts

EPS = np.full(3, 1e-5)
REFERENCE = Reference(np.array([0.0, 1.0, -2.0]), np.array([1.0, 4.0, 0.25]), np.inf)


def live(mean: list[float], var: list[float], spread: float = 0.0) -> Estimate:
    return Estimate(np.array(mean), np.array(var), np.full(3, spread), np.full(3, spread))


def norm(name: str, weight: list[float], part: str = "input", **more: list[float]) -> WatchedNorm:
    vectors = {"mean": [0.0] * len(weight), "var": [1.0] * len(weight)} | more
    arrays = {key: np.array(value) for key, value in vectors.items()}
    return WatchedNorm(name, part, weight=np.array(weight), eps=1e-5, rows=np.inf, **arrays)  # type: ignore[arg-type]


def test_a_sample_like_its_reference_is_nowhere_else() -> None:
    found = shift(live([0.0, 1.0, -2.0], [1.0, 4.0, 0.25]), REFERENCE, EPS, 100)
    for values in (found.delta, found.log_ratio, found.divergence, found.z):
        np.testing.assert_array_equal(values, np.zeros(3))


def test_the_divergence_is_the_mean_of_both_of_torchs_kl_divergences() -> None:
    mean, var = [0.3, 0.0, -2.5], [2.0, 4.4, 0.2]
    found = shift(live(mean, var), REFERENCE, EPS, 100)
    ours = [Normal(m, math.sqrt(v + 1e-5)) for m, v in zip(mean, var, strict=True)]
    theirs = [Normal(m, math.sqrt(v + 1e-5)) for m, v in zip(REFERENCE.mean, REFERENCE.var, strict=True)]
    both = [(kl_divergence(p, q) + kl_divergence(q, p)).item() for p, q in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(found.divergence, both, rtol=1e-5)
    torch.testing.assert_close(found.delta[0], 0.3, rtol=1e-4, atol=0)


def test_what_sampling_alone_would_show_is_taken_off() -> None:
    random = np.random.default_rng(0)
    of_nothing = []
    for _ in range(4000):
        x = random.normal(size=100)
        d = (x - x.mean()) ** 2
        sample = Estimate(*(np.array([v]) for v in (x.mean(), x.var(), x.var(ddof=1), d.var(ddof=1))))
        of_nothing.append(shift(sample, Reference(np.zeros(1), np.ones(1), np.inf), np.zeros(1), 100))
    raw = [float(s.divergence[0] + s.delta_error[0] ** 2 + s.log_ratio_error[0] ** 2 / 2) for s in of_nothing]
    assert np.mean(raw) > 0.015
    assert abs(np.mean([s.divergence for s in of_nothing])) < 0.1 * np.mean(raw)


def test_errors_shrink_with_rows_and_hold_the_references_own() -> None:
    sample = live([0.0, 1.0, -2.0], [1.0, 4.0, 0.25], spread=0.5)
    alone = shift(sample, REFERENCE, EPS, 100)
    np.testing.assert_allclose(alone.delta_error, np.sqrt(0.5 / (REFERENCE.var + EPS) / 100))
    np.testing.assert_allclose(alone.log_ratio_error, np.sqrt(0.5 / 100) / (REFERENCE.var + EPS))
    measured = Reference(REFERENCE.mean, REFERENCE.var, 100.0)
    np.testing.assert_allclose(
        shift(sample, measured, EPS, 100).delta_error, alone.delta_error * math.sqrt(2)
    )


def test_a_channel_that_is_far_off_counts_no_more_than_ten() -> None:
    found = shift(live([1e6, 1.0, -2.0], [1.0, 4e12, 0.25]), REFERENCE, EPS, 100)
    assert found.divergence[:2].tolist() == [MOST, MOST]


def test_a_layer_is_the_mean_of_its_channels_by_gamma_squared() -> None:
    watched = Watched((norm("a", [1.0, 2.0]), norm("b", [5.0], "content")))
    found = shift(live([1.0, 0.0, 0.0], [1.0, 1.0, 3.0]), Reference(np.zeros(3), np.ones(3), np.inf), EPS, 9)
    each = found.divergence
    np.testing.assert_allclose(scores(found, watched), [(each[0] + 4 * each[1]) / 5, each[2]])
    assert each[0] > 0.9
    assert each[2] > 0.5


def test_channels_that_are_dead_or_broken_weigh_nothing() -> None:
    broken = norm("a", [0.0, 1.0, 1.0, 1.0], mean=[0, 0, math.nan, 0], var=[1, 1, 1, -1])
    watched = Watched((broken,))
    sample = Estimate(*(np.full(4, 9.0) for _ in range(4)))
    with np.errstate(all="ignore"):
        found = shift(sample, Reference(watched.mean, watched.var, np.inf), watched.eps, 100)
    assert watched.weight.tolist() == [0, 1, 0, 0]
    assert scores(found, watched)[0] == pytest.approx(found.divergence[1])


def test_the_first_third_of_the_norms_is_the_input_and_the_last_the_content() -> None:
    assert parts(1) == {0: "input"}
    assert parts(2) == {0: "input", 1: "content"}
    assert parts(5) == {0: "input", 1: "input", 3: "content", 4: "content"}
    assert [n for n, part in parts(53).items() if part == "input"] == list(range(18))
    assert [n for n, part in parts(53).items() if part == "content"] == list(range(35, 53))
    assert parts(0) == {}
