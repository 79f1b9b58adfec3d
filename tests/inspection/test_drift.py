"""Drift on the shipped network: what it says of rows that were held out, and of what may become of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage  # type: ignore[import-untyped]  # it ships no types; scikit-learn brings it

from service.engine import unfolded, watching
from service.engine.stopwatch import Stopwatch
from service.graph.precision import compute
from service.inspection.baseline import Baseline
from service.inspection.drift import Drift
from service.inspection.rows import Rows
from service.inspection.window import ROWS
from service.network.adopt import norms
from service.plan.preprocessing import Preprocessing
from service.store.model_store import ModelStore
from service.training.split import digits_split

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.inspection.drift_report import DriftReport
    from service.inspection.watched import Watched

STORE = Path(__file__).parents[2] / "model_store"
FLOOR = 0.05
CPU = torch.device("cpu")


class Digits:
    """The shipped network and the held-out rows in two halves: one to record a baseline, one to come live."""

    def __init__(self) -> None:
        self.stored = ModelStore(STORE).open("digits")
        source = unfolded.read(self.stored, Stopwatch())
        self._captured = source.reference.captured
        observation, self.watched = watching.observed(
            self.stored, self._captured, norms(source.network), CPU, "all"
        )
        assert observation is not None
        self._observation = observation
        split = digits_split()
        self.pixels: np.ndarray = split.held_out_pixels.numpy()
        self.labels: np.ndarray = split.held_out_labels.numpy()
        order = np.random.default_rng(0).permutation(len(self.pixels))
        self.accepted, self.live = order[:360], order[360:]
        self.clean = self.rows(self.pixels)
        self.baseline = Baseline.of(self.clean[self.accepted], self.watched, 10)

    @torch.inference_mode()
    def rows(self, pixels: np.ndarray) -> Rows:
        given = self.stored.manifest.input
        inputs = Preprocessing(given.mean, given.std).normalised(torch.from_numpy(pixels))
        answers = compute(self._captured.module, inputs, torch.float32).argmax(1).numpy()
        self._observation.begin(pixels)
        self._observation.run(math.inf)
        return Rows(*self._observation.finished(), answers)

    def accuracy(self, rows: Rows) -> float:
        return float((rows.classes == self.labels).mean())

    def drift(self, baseline: Baseline | None) -> Drift:
        return Drift("digits", 1, self.watched, baseline, FLOOR)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def window(drift: Drift, rows: Rows, chosen: np.ndarray) -> DriftReport:
    """Let rows come, all different and each of a client of its own, until a window is judged."""
    windows = drift.report.windows
    for number, row in enumerate(chosen):
        if drift.window.quota.admits(b"%d" % row, number):
            one = rows[row : row + 1]
            drift.add(one.mean, one.var, one.classes, 0.0)
        if drift.report.windows > windows:
            return drift.report
    raise AssertionError("no window was complete")


def windows(digits: Digits, rows: Rows, chosen: np.ndarray, count: int, seed: int = 0) -> list[float]:
    """How high windows of rows drawn from `chosen` are, with the baseline."""
    random = np.random.default_rng(seed)
    return [
        height(window(digits.drift(digits.baseline), rows, random.permutation(chosen))) for _ in range(count)
    ]


def height(report: DriftReport) -> float:
    """The larger of both scores that may alarm, in units of its threshold."""
    scores, limits = report.scores, report.thresholds
    assert scores is not None
    assert limits is not None
    assert scores.texture is not None
    assert limits.texture is not None
    return max(scores.input / limits.input, scores.texture / limits.texture)


# What comes in as it always did


def test_clean_windows_are_below_the_threshold_and_change_nothing(digits: Digits) -> None:
    drift, random, above = digits.drift(digits.baseline), np.random.default_rng(1), 0
    for _ in range(100):  # 1,000 in benchmarks/drift.py
        report = window(drift, digits.clean, random.permutation(digits.live))
        above += height(report) > 1
        assert report.state == "ok"
    assert above <= 1


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_other_shares_of_the_classes_are_no_drift(digits: Digits, classes: int) -> None:
    random = np.random.default_rng(classes)
    for _ in range(10):
        kept = random.choice(10, classes, replace=False)
        chosen = np.flatnonzero(np.isin(digits.labels, kept))
        drift = digits.drift(digits.baseline)
        for _ in range(3):
            rows = np.concatenate([random.permutation(chosen) for _ in range(3)])
            report = window_of_any(drift, digits.clean, rows)
            assert height(report) < 1
        assert drift.report.state == "ok"


def window_of_any(drift: Drift, rows: Rows, chosen: np.ndarray) -> DriftReport:
    """As `window`, with rows that may come again as if they were others."""
    windows = drift.report.windows
    for number, row in enumerate(chosen):
        drift.window.quota.admits(b"%d" % number, number)
        drift.add(rows.mean[row : row + 1], rows.var[row : row + 1], rows.classes[row : row + 1], 0.0)
        if drift.report.windows > windows:
            return drift.report
    raise AssertionError("no window was complete")


@pytest.mark.parametrize("times", [4, 16])
def test_rows_that_come_again_and_again_are_no_drift(digits: Digits, times: int) -> None:
    random = np.random.default_rng(times)
    noise = random.integers(-2, 3, (times, *digits.pixels.shape))
    copies = [digits.rows((digits.pixels + each).clip(0, 255).astype(np.uint8)) for each in noise]
    together = Rows(
        *(
            np.stack([getattr(copy, name) for copy in copies], 1).reshape(
                -1, *getattr(copies[0], name).shape[1:]
            )
            for name in ("mean", "var", "classes")
        )
    )
    found = []
    for _ in range(8):
        frames = random.permutation(digits.live)
        order = (frames[:, None] * times + np.arange(times)).flatten()
        found.append(height(window(digits.drift(digits.baseline), together, order)))
    assert max(found) < 1  # 1,000 windows: benchmarks/drift.py


def test_without_a_baseline_the_shipped_network_says_that_it_was_trained_on_other_rows(
    digits: Digits,
) -> None:
    """It was: on digits that were turned, scaled and shifted, which blurs them."""
    drift = digits.drift(None)
    states = [window(drift, digits.clean, digits.live).state for _ in range(3)]
    assert states == ["warming", "warming", "unlike training"]
    assert drift.report.reference == "frozen"


# What does not

SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": lambda x: x + np.random.default_rng(0).normal(0, 60, x.shape),
    "blur": lambda x: ndimage.gaussian_filter(x, (0, 0, 0.9, 0.9)),
    "contrast": lambda x: x * 0.38,
    "scale": lambda x: x * 8,
    "inversion": lambda x: x * 0.8 + 0.2 * (255 - x),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_that_costs_accuracy_is_drift_after_three_windows(digits: Digits, shift: str) -> None:
    shifted = SHIFTS[shift](digits.pixels.astype(float)).round().clip(0, 255).astype(np.uint8)
    rows = digits.rows(shifted)
    assert 0.05 <= digits.accuracy(digits.clean) - digits.accuracy(rows) <= 0.20
    clean, found = (windows(digits, each, digits.live, 20) for each in (digits.clean, rows))
    assert max(clean) < min(found)
    drift, random = digits.drift(digits.baseline), np.random.default_rng(5)
    states = [window(drift, rows, random.permutation(digits.live)).state for _ in range(3)]
    assert states == ["warming", "warming", "drifting"], "no window said that all is well"
    states = [window(drift, digits.clean, random.permutation(digits.live)).state for _ in range(3)]
    assert states == ["drifting", "drifting", "ok"]


def test_what_begins_well_stays_so_for_two_windows_more(digits: Digits) -> None:
    shifted = digits.rows((digits.pixels * 0.38).astype(np.uint8))
    drift, random = digits.drift(digits.baseline), np.random.default_rng(5)
    turns = (digits.clean, shifted, shifted, shifted)
    states = [window(drift, rows, random.permutation(digits.live)).state for rows in turns]
    assert states == ["ok", "ok", "ok", "drifting"]


def test_a_change_amid_a_window_is_seen_as_soon_as_one_at_its_beginning_but_for_that_window(
    digits: Digits,
) -> None:
    """Rows before and after it, in one window, look as if each was much like the one before it."""
    dark = digits.rows((digits.pixels * 0.38).astype(np.uint8))
    drift, random, fed = digits.drift(digits.baseline), np.random.default_rng(6), 0
    window(drift, digits.clean, digits.live)
    feed(drift, digits.clean, digits.live[:60], 0)
    while drift.report.state != "drifting":
        feed(drift, dark, random.permutation(digits.live)[:16], fed)
        fed += 16
        assert fed <= 192 + 3 * (ROWS + 16)


def test_rows_that_resemble_each_other_for_long_are_judged_in_the_end(digits: Digits) -> None:
    drift, random = digits.drift(digits.baseline), np.random.default_rng(7)
    for number in range(100):
        feed(drift, digits.clean, np.repeat(random.choice(digits.live, 10), 16), number * 1000)
    assert drift.report.windows >= 1
    assert drift.report.n > 1500


def test_of_rows_that_are_no_numbers_nothing_piles_up(digits: Digits) -> None:
    """They count in no window; where no others come, it is given up all the same."""
    drift, windows = digits.drift(None), set()
    nothing = np.full((1, len(digits.watched.mean)), np.nan)
    for number in range(1000):
        drift.window.quota.admits(b"%d" % number, number)
        drift.add(nothing, nothing, np.zeros(1, int), 0.0)
        windows.add(drift.window)
    assert len(windows) > 2
    assert drift.report.state == "warming"


def feed(drift: Drift, rows: Rows, chosen: np.ndarray, first: int) -> None:
    """Let rows come as if all were different, of clients of their own."""
    for number, row in enumerate(chosen, first):
        drift.window.quota.admits(b"%d" % number, number)
        drift.add(rows.mean[row : row + 1], rows.var[row : row + 1], rows.classes[row : row + 1], 0.0)


def test_digits_that_stand_on_their_heads_are_seen_by_their_texture_alone(digits: Digits) -> None:
    """What the first norms see has the same mean and variance as ever; half of the answers are wrong."""
    turned = digits.rows(np.ascontiguousarray(np.rot90(digits.pixels, 2, (2, 3))))
    assert digits.accuracy(turned) < 0.5
    drift, random = digits.drift(digits.baseline), np.random.default_rng(8)
    reports = [window(drift, turned, random.permutation(digits.live)) for _ in range(3)]
    assert all(report.scores and report.scores.input < FLOOR / 10 for report in reports)
    assert drift.report.state == "drifting"
    assert "the pixels within rows" in drift.report.meaning


def test_without_a_baseline_they_are_not_seen(digits: Digits) -> None:
    """There is no texture then, and beside the distance from training that is nothing."""
    turned = digits.rows(np.ascontiguousarray(np.rot90(digits.pixels, 2, (2, 3))))
    clean, found = (window(digits.drift(None), rows, digits.live) for rows in (digits.clean, turned))
    assert clean.scores is not None
    assert found.scores is not None
    assert found.scores.texture is None
    assert found.scores.input == pytest.approx(clean.scores.input, rel=0.2)


def test_a_tenth_of_the_rows_on_their_heads_is_not_seen(digits: Digits) -> None:
    """What drift cannot see: few rows among many, although each of them is answered wrongly."""
    pixels = digits.pixels.copy()
    pixels[::10] = np.rot90(pixels[::10], 2, (2, 3))
    turned = digits.rows(pixels)
    assert digits.accuracy(digits.clean) - digits.accuracy(turned) > 0.03
    assert max(windows(digits, turned, digits.live, 10)) < 1


# The baseline


def test_a_baseline_is_the_same_when_it_is_read_again(digits: Digits) -> None:
    again = Baseline.from_arrays(digits.baseline.arrays(), digits.watched)
    for name, array in digits.baseline.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_a_baseline_of_all_norms_serves_where_only_the_first_are_watched(digits: Digits) -> None:
    first = watched_inputs(digits.watched)
    again = Baseline.from_arrays(digits.baseline.arrays(), first)
    np.testing.assert_array_equal(again.mean, digits.baseline.mean[: len(first.mean)])


def test_a_baseline_of_other_norms_is_refused(digits: Digits) -> None:
    arrays = digits.baseline.arrays()
    with pytest.raises(ValueError, match="of other norms"):
        Baseline.from_arrays({**arrays, "class_mean": arrays["class_mean"][:, 1:]}, digits.watched)
    with pytest.raises(ValueError, match="no baseline"):
        Baseline.from_arrays({"rows": np.array([100])}, digits.watched)
    with pytest.raises(ValueError, match="of other norms"):
        Baseline.from_arrays({**arrays, "texture_floor": arrays["texture_floor"][1:]}, digits.watched)
    with pytest.raises(ValueError, match="of other norms"):
        Baseline.from_arrays({**arrays, "texture_channels": arrays["texture_channels"] + 1}, digits.watched)


def test_a_baseline_takes_64_rows(digits: Digits) -> None:
    with pytest.raises(ValueError, match="64 rows or more, not 63"):
        Baseline.of(digits.clean[:63], digits.watched, 10)


def test_the_threshold_falls_with_the_rows_of_a_window_and_never_below_the_floor(digits: Digits) -> None:
    of_rows = [digits.baseline.thresholds(rows, 0.0)[1] for rows in (64, 100, 512, 4000)]
    assert of_rows == sorted(of_rows, reverse=True)
    assert digits.baseline.thresholds(64, 0.7) == (0.7, 0.7)
    report = window(Drift("digits", 1, digits.watched, digits.baseline, 7.0), digits.clean, digits.live)
    assert report.thresholds is not None
    assert report.thresholds.model_dump() == {"input": 7.0, "content": 7.0, "texture": 7.0}


def test_the_thresholds_are_what_windows_of_accepted_rows_score(digits: Digits) -> None:
    random, found = np.random.default_rng(0), []
    for _ in range(100):
        report = window(digits.drift(digits.baseline), digits.clean, random.permutation(digits.accepted))
        assert report.scores is not None
        found.append(report.scores.input)
    assert max(found) < digits.baseline.thresholds(ROWS, 0.0)[0] < 0.005


def watched_inputs(watched: Watched) -> Watched:
    return type(watched)(tuple(norm for norm in watched.norms if norm.part == "input"))


def test_a_report_names_the_channels_that_are_furthest_off(digits: Digits) -> None:
    dark = digits.rows((digits.pixels * 0.38).astype(np.uint8))
    report = window(digits.drift(digits.baseline), dark, digits.live)
    assert [layer.name for layer in report.layers] == ["bn1", "bn2", "bn4", "bn5"]
    assert [layer.part for layer in report.layers] == ["input", "input", "content", "content"]
    first = report.layers[0]
    assert len(first.worst) == 5
    assert all(channel.log_ratio < -1 and channel.z > 10 for channel in first.worst)
    assert report.model_dump(by_alias=True)["layers"][0]["worst"][0]["lambda"] == first.worst[0].log_ratio
