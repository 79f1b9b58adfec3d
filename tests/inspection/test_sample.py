"""One row against its reference, and a window channel by channel: by the definitions, and as a file."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.inspection.baseline import Baseline
from service.inspection.drift import Drift
from service.inspection.drift_report import DriftReport
from service.inspection.last_window import VECTORS
from service.inspection.notices import Notices
from service.inspection.rows import Rows
from service.inspection.sample import sample_drift
from service.inspection.watched import Watched, WatchedNorm

if TYPE_CHECKING:
    from pathlib import Path

    from service.inspection.watched import Part

RANDOM = np.random.default_rng(0)


def norm(name: str, part: Part, channels: int) -> WatchedNorm:
    mean, var, weight = (
        RANDOM.normal(size=channels),
        RANDOM.uniform(0.5, 2, channels),
        RANDOM.normal(size=channels),
    )
    return WatchedNorm(name, part, mean, var, weight, 1e-3, 608.0)


WATCHED = Watched((norm("stem.bn", "input", 3), norm("last/bn", "content", 7)))


def rows(count: int, shift: float = 0.0) -> Rows:
    mean = WATCHED.mean + shift + 0.3 * RANDOM.normal(size=(count, 10))
    var = WATCHED.var * RANDOM.uniform(0.5, 1.5, (count, 10))
    return Rows(mean.astype(np.float32), var.astype(np.float32), RANDOM.integers(0, 2, count))


def by_definition(mean: np.ndarray, var: np.ndarray, of: np.ndarray, spread: np.ndarray) -> list[float]:
    """The scores of one row at every norm: J of each channel, weighed by gamma², a number at a time."""
    found, first = [], 0
    for one in WATCHED.norms:
        score = 0.0
        for channel in range(len(one.mean)):
            base, own = spread[first + channel] + one.eps, var[first + channel] + one.eps
            delta, ratio = (mean[first + channel] - of[first + channel]) / math.sqrt(base), own / base
            j = min(0.5 * (ratio + 1 / ratio - 2 + delta**2 * (1 + 1 / ratio)), 10.0)
            score += j * one.weight[channel] ** 2 / (one.weight**2).sum()
        found.append(score)
        first += len(one.mean)
    return found


# A sample


def test_a_sample_scores_what_the_definition_says_against_the_frozen_statistics() -> None:
    one = rows(1)
    found = sample_drift(np.stack([one.mean[0], one.var[0]]), WATCHED, {})
    scores = [layer["score"] for layer in found["layers"]]
    np.testing.assert_allclose(scores, by_definition(one.mean[0], one.var[0], WATCHED.mean, WATCHED.var))
    assert found["reference"] == "frozen"
    said = [(layer["name"], layer["part"], layer["typical"]) for layer in found["layers"]]
    assert said == [("stem.bn", "input", None), ("last/bn", "content", None)]


def test_where_a_row_has_one_value_only_its_mean_counts() -> None:
    flat = Watched((WATCHED.norms[0], replace(WATCHED.norms[1], has_pixels=False)))
    one = rows(1)
    one.var[0, 3:] = 0.0
    found = sample_drift(np.stack([one.mean[0], one.var[0]]), flat, {})
    first, last = by_definition(
        one.mean[0], np.append(one.var[0, :3], WATCHED.var[3:]), WATCHED.mean, WATCHED.var
    )
    np.testing.assert_allclose([layer["score"] for layer in found["layers"]], [first, last])
    assert {worst["lambda"] for worst in found["layers"][1]["worst"]} == {0.0}
    assert last < 10


def test_a_sample_is_held_against_the_baseline_where_there_is_one() -> None:
    accepted, one = rows(200, shift=1.0), rows(1)
    baseline = Baseline.of(accepted, WATCHED, 1)
    found = sample_drift(np.stack([one.mean[0], one.var[0]]), WATCHED, baseline.of_rows())
    mean = accepted.mean.astype(float).mean(0)
    var = (accepted.var + accepted.mean.astype(float) ** 2).mean(0) - mean**2
    scores = [layer["score"] for layer in found["layers"]]
    np.testing.assert_allclose(scores, by_definition(one.mean[0], one.var[0], mean, var), rtol=1e-6)
    alone = [by_definition(m, v, mean, var) for m, v in zip(accepted.mean, accepted.var, strict=True)]
    typical = [layer["typical"] for layer in found["layers"]]
    np.testing.assert_allclose(typical, np.median(alone, axis=0), rtol=1e-5)
    assert found["reference"] == "baseline"


def test_the_worst_channels_add_most_and_are_numbered_within_their_norm() -> None:
    moments = np.stack([WATCHED.mean, WATCHED.var])
    moments[0, 3 + 4] += 2 * math.sqrt(WATCHED.var[3 + 4] + 1e-3)
    worst = sample_drift(moments, WATCHED, {})["layers"][1]["worst"]
    assert worst[0]["channel"] == 4
    assert len(worst) == 5
    assert worst[0]["delta"] == pytest.approx(2)
    assert worst[0]["lambda"] == pytest.approx(0)


def test_a_baseline_of_fewer_norms_keeps_what_is_typical_of_those() -> None:
    """A service that watches only the input reads a baseline of both ends."""
    baseline = Baseline.of(rows(100), WATCHED, 1)
    fewer = Watched(WATCHED.norms[:1])
    read = Baseline.from_arrays(baseline.arrays(), fewer)
    np.testing.assert_array_equal(read.row_scores, baseline.row_scores[:1])
    assert read.of_rows()["mean"].shape == (3,)
    with pytest.raises(ValueError, match="row_scores"):
        Baseline.from_arrays(baseline.arrays() | {"row_scores": np.zeros((0,))}, fewer)


# The last window


def judged(drift: Drift) -> Rows:
    """Let rows come until a window is judged; these rows."""
    come = rows(160, shift=0.5)
    for number in range(len(come)):
        assert drift.window.quota.admits(b"%d" % number, number)
        one = come[number : number + 1]
        if drift.add(one.mean, one.var, one.classes, 1234.5):
            return come[: number + 1]
    raise AssertionError("no window was complete")


@pytest.mark.parametrize("baseline", [None, Baseline.of(rows(200), WATCHED, 1)], ids=["frozen", "baseline"])
def test_the_last_window_is_read_norm_by_norm(tmp_path: Path, baseline: Baseline | None) -> None:
    drift, notices = Drift("m", 1, WATCHED, baseline, 0.005), Notices(tmp_path)
    notices.put_up(drift.report, drift.last)
    assert notices.read_layer("m", 1, "stem.bn") is None
    come = judged(drift)
    notices.put_up(drift.report, drift.last)
    read = notices.read_layer("m", 1, "last/bn")
    assert read is not None
    assert (read.judged_at, read.n, read.n_eff) == (1234.5, len(come), drift.report.n_eff)
    assert tuple(read.vectors) == VECTORS
    mean = come.mean.astype(float).mean(0)[3:]
    var = (come.var + come.mean.astype(float) ** 2).mean(0)[3:] - mean**2
    np.testing.assert_allclose(read.vectors["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(read.vectors["var"], var, rtol=1e-5)
    of = (baseline.mean, baseline.var) if baseline else (WATCHED.mean, WATCHED.var)
    np.testing.assert_allclose(read.vectors["reference_mean"], of[0][3:], rtol=1e-6)
    np.testing.assert_allclose(read.vectors["reference_var"], of[1][3:], rtol=1e-6)
    delta = (mean - of[0][3:]) / np.sqrt(of[1][3:] + 1e-3)
    np.testing.assert_allclose(read.vectors["delta"], delta, rtol=1e-3, atol=1e-6)
    for channel in drift.report.layers[1].worst:
        for kind, said in (("delta", channel.delta), ("lambda", channel.log_ratio), ("z", channel.z)):
            assert read.vectors[kind][channel.channel] == pytest.approx(said, rel=1e-6)
    assert notices.read_layer("m", 1, "bn") is None
    assert notices.read_layer("m", 2, "last/bn") is None


def test_a_window_is_written_once_and_goes_with_its_version(tmp_path: Path) -> None:
    drift, notices = Drift("m", 1, WATCHED, None, 0.005), Notices(tmp_path)
    judged(drift)
    notices.put_up(drift.report, drift.last)
    (file,) = tmp_path.glob("*window*")
    before = file.stat().st_ino
    notices.put_up(drift.report, drift.last)
    assert file.stat().st_ino == before
    drift.fail()
    notices.put_up(drift.report, drift.last)
    assert notices.read_layer("m", 1, "stem.bn") is None
    notices.put_up(DriftReport(model="m", version=1, state="warming", meaning=""), None)
    notices.take_down("m", 1)
    assert list(tmp_path.iterdir()) == []


def test_what_an_engine_before_judged_is_cleared(tmp_path: Path) -> None:
    drift, notices = Drift("m", 1, WATCHED, None, 0.005), Notices(tmp_path)
    judged(drift)
    notices.put_up(drift.report, drift.last)
    Notices(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []
