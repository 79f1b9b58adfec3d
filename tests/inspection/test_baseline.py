"""The baseline: what making one takes does not grow with the network, and no number depends on that."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.inspection import bootstrap, pieces
from service.inspection.baseline import Baseline
from service.inspection.rows import Rows
from service.inspection.watched import Watched, WatchedNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.inspection.watched import Part

_MIB = 1 << 20


def watched(inputs: Sequence[int], content: Sequence[int]) -> Watched:
    """Norms of so many channels each."""
    random = np.random.default_rng(0)

    def norm(part: Part, channels: int) -> WatchedNorm:
        mean, var, weight = (random.uniform(0.5, 1.5, channels).astype("f4") for _ in range(3))
        return WatchedNorm(f"{part}.{random.integers(1 << 30)}", part, mean, var, weight, 1e-5, 1000.0)

    return Watched((*(norm("input", c) for c in inputs), *(norm("content", c) for c in content)))


def seen(norms: Watched, count: int, classes: int) -> Rows:
    random = np.random.default_rng(1)
    shape = count, len(norms.mean)
    mean, var = random.normal(1.0, 0.3, shape), random.uniform(0.5, 1.5, shape)
    return Rows(mean.astype("f4"), var.astype("f4"), random.integers(0, classes, count))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS", 500)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("inputs", "content", "classes"),
    [([1000] * 4, [2000] * 2, 10), ([16], [8000], 10), ([64], [64], 20_000)],
    ids=["many wide norms", "one very wide norm", "many classes"],
)
def test_what_it_takes_beside_the_rows_is_bounded(
    inputs: Sequence[int], content: Sequence[int], classes: int
) -> None:
    norms = watched(inputs, content)
    rows = seen(norms, 100, classes)
    tracemalloc.start()
    try:
        Baseline.of(rows, norms, classes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * _MIB


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("classes", [1, 3])
def test_its_numbers_do_not_depend_on_how_much_is_computed_at_once(
    monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    norms = watched([5, 7, 3], [11, 2])
    rows = seen(norms, 100, classes)
    whole = Baseline.of(rows, norms, classes).arrays()
    monkeypatch.setattr(pieces, "_MOST", 2000)  # four channels, which end within norms
    cut = Baseline.of(rows, norms, classes).arrays()
    for name, array in whole.items():
        np.testing.assert_allclose(cut[name], array, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def stored() -> tuple[Watched, dict[str, np.ndarray]]:
    """A baseline as a file holds it, and the norms that it is of."""
    norms = watched([5, 7], [3])
    return norms, Baseline.of(seen(norms, 100, 3), norms, 3).arrays()


def test_what_was_stored_is_read(stored: tuple[Watched, dict[str, np.ndarray]]) -> None:
    norms, arrays = stored
    for name, array in Baseline.from_arrays(arrays, norms).arrays().items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("rows", np.array(np.inf)),
        ("rows", np.array([300, 300])),
        ("mean", np.full(15, np.nan)),
        ("mean", np.ones(15, bool)),
        ("var", np.full(15, -1.0)),
        ("var", np.full(15, np.inf)),
        ("class_rows", np.zeros(3, int)),
        ("class_mean", np.full((3, 12), np.nan, "f4")),
        ("class_square", np.ones((3, 12), complex)),
        ("row_scores", np.full(3, np.nan)),
        ("row_scores", np.ones(3, "f2")),
        ("row_scores", np.array(1.0)),
        ("quantiles", np.full((4, 2), np.inf)),
        ("texture_channels", np.full(12, -1)),
        ("texture_channels", np.arange(12.0)),
        ("texture_floor", np.full(12, -1.0)),
        ("texture_inverse", np.full((12, 12), np.nan)),
        ("texture_numbers", np.array([1.0, np.nan])),
    ],
)
def test_numbers_that_nothing_can_be_compared_with_are_refused_by_name(
    stored: tuple[Watched, dict[str, np.ndarray]], name: str, array: np.ndarray
) -> None:
    norms, arrays = stored
    with pytest.raises(ValueError, match=name.partition("_")[0]):
        Baseline.from_arrays({**arrays, name: array}, norms)


def test_a_file_without_one_of_them_is_refused(stored: tuple[Watched, dict[str, np.ndarray]]) -> None:
    norms, arrays = stored
    for name in arrays:
        with pytest.raises(ValueError, match=f"holds no baseline .{name}."):
            Baseline.from_arrays({other: arrays[other] for other in arrays if other != name}, norms)
