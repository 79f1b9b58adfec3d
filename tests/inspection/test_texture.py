"""Texture: distances as scipy has them, and what is seen in rows that differ much from each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis  # type: ignore[import-untyped]  # it ships no types

from service.inspection.texture import MOST_CHANNELS, Texture
from service.inspection.watched import Watched, WatchedNorm

CHANNELS = 12
WINDOW = 128


def norm(channels: int, weight: np.ndarray | None = None, part: str = "input") -> WatchedNorm:
    one = np.ones(channels)
    return WatchedNorm("bn", part, 0 * one, one, one if weight is None else weight, 1e-5, 1000.0)  # type: ignore[arg-type]


WATCHED = Watched((norm(CHANNELS), norm(5, part="content")))


def variances(random: np.random.Generator, rows: int, noise: float = 0.0) -> np.ndarray:
    """Within rows whose contrast differs by a factor of ten, as all channels but for a little feel it."""
    contrast = np.exp(random.normal(0, 1.2, (rows, 1)))
    own = np.exp(random.normal(0, 0.15, (rows, CHANNELS + 5)))
    return contrast * own + noise * np.linspace(0.02, 0.2, CHANNELS + 5)


def texture(var: np.ndarray, classes: np.ndarray | None = None, watched: Watched = WATCHED) -> Texture:
    numbers = np.zeros(len(var), int) if classes is None else classes
    return Texture.of(var, var.mean(0), numbers, int(numbers.max()) + 1, watched)


def judged(found: Texture, var: np.ndarray, shares: tuple[float, ...] = (1.0,)) -> tuple[float, float]:
    return found.judged(found.logs(var).mean(0), np.array(shares), len(var))


def test_the_score_is_mahalanobis_distance_less_what_chance_would_show() -> None:
    random = np.random.default_rng(0)
    accepted, live = variances(random, 300), variances(random, WINDOW, noise=1.0)
    own = [
        np.log(part[:, :CHANNELS] + 0.01 * accepted.mean(0)[:CHANNELS] + 1e-5) for part in (accepted, live)
    ]
    covariance = np.cov(own[0].T, bias=True)
    whitening = np.linalg.inv(covariance + 0.02 * np.eye(CHANNELS))
    away = mahalanobis(own[1].mean(0), own[0].mean(0), whitening) ** 2
    chance = np.trace(whitening @ covariance) * (1 / WINDOW + 1 / 300)
    assert judged(texture(accepted), live)[0] == pytest.approx(away - chance, rel=1e-9)


def test_windows_of_other_rows_stay_below_the_threshold() -> None:
    random = np.random.default_rng(1)
    above = 0
    for _ in range(10):
        found = texture(variances(random, 200))
        for _ in range(50):
            score, threshold = judged(found, variances(random, WINDOW))
            above += score > threshold
    assert above <= 5


def test_noise_is_seen_that_is_little_beside_what_rows_differ_by() -> None:
    random = np.random.default_rng(2)
    accepted, live = variances(random, 200), variances(random, WINDOW, noise=1.0)
    spread = np.log(accepted).std(0)[:CHANNELS]
    moved = np.abs(np.log(live).mean(0) - np.log(accepted).mean(0))[:CHANNELS]
    assert (moved < 0.5 * spread).all()
    score, threshold = judged(texture(accepted), live)
    assert score > 2 * threshold


def test_another_mix_of_classes_is_not_seen() -> None:
    random = np.random.default_rng(3)
    classes = random.integers(0, 2, 400)
    accepted = variances(random, 400) * np.where(classes, 5.0, 1.0)[:, None]
    live = variances(random, WINDOW) * 5
    score, threshold = judged(texture(accepted, classes), live, (0.0, 1.0))
    assert score < threshold
    score, threshold = judged(texture(accepted), live)
    assert score > threshold


def test_few_rows_of_a_class_have_a_higher_threshold() -> None:
    random = np.random.default_rng(4)
    classes = np.repeat([0, 1], [390, 10])
    found = texture(variances(random, 400), classes)
    _, many = judged(found, variances(random, WINDOW), (1.0, 0.0))
    _, few = judged(found, variances(random, WINDOW), (0.0, 1.0))
    assert few == pytest.approx(many * (1 / WINDOW + 1 / 10) / (1 / WINDOW + 1 / 390))


def test_one_blank_row_among_many_is_not_seen() -> None:
    random = np.random.default_rng(5)
    found, live = texture(variances(random, 200)), variances(random, WINDOW)
    live[0] = 0.0
    score, threshold = judged(found, live)
    assert score < threshold


def test_the_heaviest_channels_of_each_norm_at_the_input_are_looked_at() -> None:
    gamma = np.ones(300)
    gamma[7], gamma[250] = 0.0, 9.0
    watched = Watched((norm(300, gamma), norm(3, np.array([1.0, 0.0, 1.0])), norm(4, part="content")))
    var = np.exp(np.random.default_rng(6).normal(0, 1, (64, 307)))
    channels = texture(var, watched=watched).channels.tolist()
    assert len([channel for channel in channels if channel < 300]) == MOST_CHANNELS // 2
    assert channels == sorted(channels)
    assert 250 in channels
    assert 7 not in channels
    assert [channel for channel in channels if channel >= 300] == [300, 302]


def test_channels_that_never_varied_do_no_harm() -> None:
    accepted = variances(np.random.default_rng(7), 64)
    accepted[:, 3] = 0.0
    score, threshold = judged(texture(accepted), accepted)
    assert np.isfinite(score)
    assert score < threshold
