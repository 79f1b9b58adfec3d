"""What drift sees and what it does not: docs/drift.md's tables, in some minutes.

    python benchmarks/drift.py [--networks shipped,plain,shapes] [--windows 1000] [--seed 0]

`shipped`: the digits model of the store, which was trained on digits that were turned, scaled and shifted.
`plain`: the same network trained without that, its rate ending at 0. `shapes`: 64x64 RGB images that are
generated, with a network of seven norms. A baseline comes from one half of the held-out rows, windows from
the other. Every kind of shift is made so strong that it costs 5 to 20 points of accuracy.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import mannwhitneyu

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import subjects

from service.inspection.baseline import Baseline
from service.inspection.drift import Drift
from service.inspection.moments import Moments
from service.inspection.shift import Reference, shift
from service.inspection.window import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from subjects import Subject

    from service.inspection.drift_report import DriftReport
    from service.inspection.rows import Rows

FLOOR = 0.05
_AT_ONCE = 16
"""Rows: as often as a window looks whether it knows enough."""

HARMFUL: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "noise": lambda x, s: x + np.random.default_rng(0).normal(0, 250 * s, x.shape),
    "blur": lambda x, s: ndimage.gaussian_filter(x, (0, 0, 8 * s, 8 * s)),
    "contrast": lambda x, s: 128 + (x - 128) * (1 - s),
    "scale down": lambda x, s: x * (1 - s),
    "scale up": lambda x, s: x * (1 + 30 * s),
    "inversion": lambda x, s: x * (1 - s) + s * (255 - x),
}
HARMLESS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brighter by 5 levels": lambda x: x + 5,
    "brighter by 20 levels": lambda x: x + 20,
    "darker by 20 levels": lambda x: x - 20,
    "a tenth less contrast": lambda x: 128 + (x - 128) * 0.9,
    "noise of 3 levels": lambda x: x + np.random.default_rng(0).normal(0, 3, x.shape),
    "blue for red": lambda x: x[:, ::-1],
}
GEOMETRIC: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": lambda x: x.transpose(0, 1, 3, 2),
    "turned by 90 degrees": lambda x: np.rot90(x, 1, (2, 3)),
    "turned by 180 degrees": lambda x: np.rot90(x, 2, (2, 3)),
    "mirrored": lambda x: x[..., ::-1],
    "a quarter of the width to the side": lambda x: np.roll(x, x.shape[3] // 4, 3),
    "a quarter of the height down": lambda x: np.roll(x, x.shape[2] // 4, 2),
    "turned by 30 degrees": lambda x: ndimage.rotate(x, 30, (2, 3), reshape=False, order=1),
}


@dataclass(frozen=True)
class Judged:
    """One window's scores, at the input."""

    score: float
    texture: float
    height: float
    """The larger of both in units of its threshold."""
    training: float


class Trial:
    """A subject with its baseline, and windows of the rows that came after."""

    def __init__(self, subject: Subject, windows: int, seed: int) -> None:
        self.subject = subject
        self.windows = windows
        self.random = np.random.default_rng(seed)
        order = self.random.permutation(len(subject.pixels))
        self.accepted, self.live = np.array_split(order, 2)
        self.clean = subject.rows(subject.pixels)
        self.baseline = Baseline.of(self.clean[self.accepted], subject.watched, subject.classes)
        self.accuracy = self.accuracy_of(self.clean)

    def accuracy_of(self, rows: Rows) -> float:
        return float((rows.classes == self.subject.labels).mean())

    def drift(self) -> Drift:
        return Drift(self.subject.name, 1, self.subject.watched, self.baseline, FLOOR)

    def judged(self, rows: Rows, chosen: Iterable[int], drift: Drift | None = None) -> DriftReport | None:
        """The report of the next window of these rows, each of a client of its own."""
        drift = drift or self.drift()
        before, order = drift.report.windows, np.fromiter(chosen, int)
        for first in range(0, len(order), _AT_ONCE):
            some = rows[order[first : first + _AT_ONCE]]
            for number in range(first, first + len(some)):
                drift.window.quota.admits(b"%d" % number, number)
            drift.add(some.mean, some.var, some.classes, 0.0)
            if drift.report.windows > before:
                return drift.report
        return None

    def scores(self, rows: Rows, count: int, draw: Callable[[], np.ndarray] | None = None) -> list[Judged]:
        """Of so many windows, apart from each other."""
        draw = draw or (lambda: self.random.permutation(self.live))
        reports = filter(None, (self.judged(rows, draw()) for _ in range(count)))
        return [_of(report) for report in reports]


def _of(report: DriftReport) -> Judged:
    scores, thresholds, training = report.scores, report.thresholds, report.training_scores
    if not (scores and thresholds and training and scores.texture is not None and thresholds.texture):
        raise SystemExit("a window was judged without a baseline")
    height = max(scores.input / thresholds.input, scores.texture / thresholds.texture)
    return Judged(scores.input, scores.texture, height, training.input)


def clean(trial: Trial) -> list[Judged]:
    found = trial.scores(trial.clean, trial.windows)
    above = sum(each.height > 1 for each in found)
    drift, states = trial.drift(), set()
    for _ in range(trial.windows):
        report = trial.judged(trial.clean, trial.random.permutation(trial.live), drift)
        states.add(report.state if report else "")
    print(f"\nclean: {above} of {len(found)} windows above, states {', '.join(sorted(states))}")
    _print_row("clean", found)
    return found


def harmful(trial: Trial, undisturbed: list[Judged]) -> None:
    print("\n| shift | points lost | input, median | texture, median | height, least | AUC | drifting |")
    print("|---|---|---|---|---|---|---|")
    base = [each.height for each in undisturbed]
    for name, change in HARMFUL.items():
        rows, lost = _that_costs(trial, change)
        if rows is None:
            print(f"| {name} | {lost:.1f} at most | | | | | |")
            continue
        found = trial.scores(rows, 100)
        heights = [each.height for each in found]
        auc = mannwhitneyu(heights, base).statistic / (len(heights) * len(base))
        right = sum(_is_drifting(trial, rows) for _ in range(40))
        print(
            f"| {name} | {lost:.1f} | {_medians(found)} | {min(heights):.1f} | {auc:.4f} | {right} of 40 |",
            flush=True,
        )


def harmless(trial: Trial) -> None:
    _table(trial, "harmless shift", HARMLESS)


def geometric(trial: Trial) -> None:
    _table(trial, "geometric shift", GEOMETRIC)


def _table(trial: Trial, title: str, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    print(f"\n| {title} | points lost | input, median | texture, median | windows above |")
    print("|---|---|---|---|---|")
    for name, change in changes.items():
        rows = trial.subject.rows(_as_pixels(change(trial.subject.pixels.astype(float))))
        found = trial.scores(rows, 50)
        above = sum(each.height > 1 for each in found)
        lost = 100 * (trial.accuracy - trial.accuracy_of(rows))
        print(f"| {name} | {lost:.1f} | {_medians(found)} | {above} of 50 |", flush=True)


def mixes(trial: Trial) -> None:
    for classes in (1, 3, 5):
        found, alarms = list[Judged](), 0
        for _ in range(50):
            kept = trial.random.choice(trial.subject.classes, classes, replace=False)
            pool = np.flatnonzero(np.isin(trial.subject.labels, kept))
            drift = trial.drift()
            found += trial.scores(trial.clean, 3, lambda pool=pool: _long(trial.random, pool))  # type: ignore[misc]
            for _ in range(3):
                trial.judged(trial.clean, _long(trial.random, pool), drift)
            alarms += drift.report.state != "ok"
        print(f"{classes} classes: {alarms} of 50 are an alarm")
        _print_row(f"{classes} classes", found)


def repeated(trial: Trial) -> None:
    for times in (4, 16):
        found = trial.scores(
            trial.clean,
            100,
            lambda times=times: np.concatenate(  # type: ignore[misc]
                [np.repeat(trial.random.permutation(trial.live), times) for _ in range(8)]
            ),
        )
        above = sum(each.height > 1 for each in found)
        print(f"each row {times} times, counted as if not quite the same: {above} of {len(found)} above")
        _print_row(f"each row {times} times", found)


def replayed(trial: Trial) -> None:
    """The rows of training themselves, against the frozen statistics."""
    subject = trial.subject
    rows, watched = subject.rows(subject.trained_on), subject.watched
    live = Moments.of(rows.mean, rows.var, watched.mean).estimate()
    found = shift(live, Reference(watched.mean, watched.var, watched.rows), watched.eps, len(rows))
    layers = judge(live, Reference(watched.mean, watched.var, watched.rows), watched, len(rows)).layers
    alive = watched.weight > 0
    print(
        f"\nreplay of the training rows: |z| <= 4 for {np.mean(found.z[alive] <= 4):.1%} of the channels, "
        f"median |delta| {np.median(np.abs(found.delta[alive])):.3f}, scores {np.round(layers, 4).tolist()}"
    )


def _is_drifting(trial: Trial, rows: Rows) -> bool:
    drift = trial.drift()
    for _ in range(3):
        trial.judged(rows, trial.random.permutation(trial.live), drift)
    return drift.report.state == "drifting"


def _that_costs(trial: Trial, change: Callable[[np.ndarray, float], np.ndarray]) -> tuple[Rows | None, float]:
    """Rows changed so much that 5 to 20 points are lost, as near to 10 as ten bisections come."""
    low, high, lost, rows = 0.0, 1.0, 0.0, None
    most = 0.0
    for _ in range(10):
        middle = (low + high) / 2
        found = trial.subject.rows(_as_pixels(change(trial.subject.pixels.astype(float), middle)))
        costs = 100 * (trial.accuracy - trial.accuracy_of(found))
        most = max(most, costs)
        if 5 <= costs <= 20 and (rows is None or abs(costs - 10) < abs(lost - 10)):
            rows, lost = found, costs
        low, high = (middle, high) if costs < 10 else (low, middle)
    return rows, lost if rows else most


def _as_pixels(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.round().clip(0, 255).astype(np.uint8))


def _long(random: np.random.Generator, pool: np.ndarray) -> np.ndarray:
    return np.concatenate([random.permutation(pool) for _ in range(math.ceil(2000 / len(pool)))])


def _print_row(name: str, found: list[Judged]) -> None:
    print(f"{name}, median and largest:", end="")
    for field in ("score", "texture", "height", "training"):
        values = [getattr(each, field) for each in found]
        print(f" {field} {np.median(values):.5f}, {max(values):.5f};", end="")
    print(flush=True)


def _medians(found: list[Judged]) -> str:
    return " | ".join(
        f"{np.median([getattr(each, part) for each in found]):.4f}" for part in ("score", "texture")
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="shipped,plain,shapes")
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks.split(","):
        trial = Trial(subjects.SUBJECTS[name](arguments.seed), arguments.windows, arguments.seed)
        print(
            f"\n## {name}\n\n{len(trial.clean)} held-out rows, {100 * trial.accuracy:.1f} % right", flush=True
        )
        undisturbed = clean(trial)
        mixes(trial)
        repeated(trial)
        harmful(trial, undisturbed)
        harmless(trial)
        geometric(trial)
        replayed(trial)


if __name__ == "__main__":
    main()
