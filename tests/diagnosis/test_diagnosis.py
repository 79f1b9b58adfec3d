"""The diagnosis of photographs: it names what was planted in the manifest, and accuses no right one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.diagnosis.diagnosis import diagnose
from service.diagnosis.variants import changed, variants

if TYPE_CHECKING:
    from service.diagnosis.diagnosis import Diagnosis

    from .conftest import Trained


@pytest.mark.parametrize("first", [0, 16, 32, 48])
def test_the_manifest_of_the_training_is_not_accused(photographs: Trained, first: int) -> None:
    found = photographs.diagnosis(photographs.spec, photographs.contents[first : first + 16])
    assert (found.verdict, found.likely, found.fix) == ("fits", None, ())


def faults(trained: Trained) -> dict[str, tuple[dict[str, Any], str]]:
    mean, std = np.array(trained.spec.mean), np.array(trained.spec.std)
    ones = np.ones(3)
    written = {
        "missing": (0 * ones, ones, "mean and std"),
        "doubled": (mean + std * mean, std**2, "mean and std"),
        "divided twice": (255 * mean, 255 * std, "division by 255"),
        "not divided": (mean / 255, std / 255, "division by 255"),
    }
    found: dict[str, tuple[dict[str, Any], str]] = {
        name: ({"mean": m.tolist(), "std": s.tolist()}, fault) for name, (m, s, fault) in written.items()
    }
    return found | {"order": ({"colour": "bgr"}, "channel order")}


@pytest.mark.parametrize("name", ["missing", "doubled", "divided twice", "not divided", "order"])
def test_a_planted_fault_is_named_from_sixteen_images(photographs: Trained, name: str) -> None:
    wrong, fault = faults(photographs)[name]
    found = photographs.diagnosis(changed(photographs.spec, **wrong), photographs.contents[:16])
    assert found.likely is not None
    assert (found.verdict, found.likely.variant.fault) == ("fault", fault)
    assert found.fix


def test_a_network_trained_on_bgr_is_fixed_by_one_line(photographs: Trained) -> None:
    found = photographs.diagnosis(changed(photographs.spec, colour="bgr"), photographs.contents[:16])
    assert found.fix == ('colour = "rgb"',)


def test_images_of_something_else_are_called_unclear(photographs: Trained) -> None:
    """Rows that no preprocessing brings near: every norm sees means far away, whatever is done."""
    watched = photographs.subject.watched
    far = np.tile(watched.mean + 3 * np.sqrt(watched.var), (16, 1))
    pixels = np.arange(16 * 3 * 64 * 64).reshape(16, 3, 64, 64).astype(np.uint8)
    seen = [(one, far, np.tile(watched.var, (16, 1))) for one in variants(photographs.spec, pixels)]
    found = diagnose(watched, seen, photographs.spec)
    assert (found.verdict, found.likely) == ("unclear", None)


def test_a_score_is_the_mean_of_what_the_norms_score_and_the_error_is_the_jackknifes(
    photographs: Trained,
) -> None:
    """Computed from its definition (docs/drift.md), row by row left out."""
    watched, random = photographs.subject.watched, np.random.default_rng(0)
    channels = len(watched.mean)
    drawn = [(random.normal(size=(6, channels)), random.uniform(1, 2, (6, channels))) for _ in range(2)]
    pair = variants(photographs.spec, np.zeros((1, 3, 64, 64), np.uint8))[:2]
    found = diagnose(
        watched,
        [(one, watched.mean + 0.3 * m, watched.var * v) for one, (m, v) in zip(pair, drawn, strict=True)],
        photographs.spec,
    )

    def score(number: int, left_out: int | None) -> float:
        m, v = (np.delete(part, [] if left_out is None else [left_out], 0) for part in drawn[number])
        m, var = watched.mean + 0.3 * m, watched.var * v
        n, mean = len(m), m.mean(0)
        live = (var + m**2).mean(0) - mean**2
        d = var + m**2 - 2 * mean * m + mean**2
        per_row = 1 / n + 1 / watched.rows
        base, own = watched.var + watched.eps, live + watched.eps
        delta, r = (mean - watched.mean) / np.sqrt(base), own / base
        j = (r + 1 / r - 2 + delta**2 * (1 + 1 / r)) / 2
        j -= m.var(0, ddof=1) / base * per_row + d.var(0, ddof=1) / own**2 * per_row / 2
        ends = np.append(watched.starts, channels)
        weighed = np.minimum(j, 10) * watched.weight
        return float(np.mean([weighed[a:b].sum() for a, b in pairwise(ends)]))

    by_name = {each.variant.name: each for each in found.variants}
    other = by_name[pair[1].name]
    assert by_name["as configured"].score == pytest.approx(score(0, None), rel=1e-6)
    assert other.gain == pytest.approx(score(0, None) - score(1, None), rel=1e-6)
    gains = np.array([score(0, row) - score(1, row) for row in range(6)])
    assert other.gain_error == pytest.approx(np.sqrt(5 / 6 * ((gains - gains.mean()) ** 2).sum()), rel=1e-6)


def test_one_image_that_is_like_no_other_is_asked_for_more_of_its_kind(photographs: Trained) -> None:
    watched = photographs.subject.watched
    far = (watched.mean + 3 * np.sqrt(watched.var))[np.newaxis]
    pixels = np.arange(3 * 64 * 64).reshape(1, 3, 64, 64).astype(np.uint8)
    seen = [(one, far, watched.var[np.newaxis]) for one in variants(photographs.spec, pixels)]
    found = diagnose(watched, seen, photographs.spec)
    assert found.verdict == "unclear"
    assert "take more images" in found.meaning


@pytest.mark.parametrize("first", [0, 16])
def test_photographs_of_materials_have_their_order_named_and_no_right_one_accused(
    materials: Trained, first: int
) -> None:
    images = materials.contents[first : first + 16]
    assert materials.diagnosis(materials.spec, images).likely is None
    found = materials.diagnosis(changed(materials.spec, colour="bgr"), images)
    assert found.fix == ('colour = "rgb"',)


def told(trained: Trained, fault: str, configured: float, corrected: float) -> Diagnosis:
    """Of rows whose means are so many standard deviations from training, and set right fewer, everywhere."""
    watched, random = trained.subject.watched, np.random.default_rng(0)
    each = random.normal(0, 0.02, (16, 1)) * np.sqrt(watched.var)

    def seen(apart: float) -> tuple[np.ndarray, np.ndarray]:
        return watched.mean + apart * np.sqrt(watched.var + watched.eps) + each, np.tile(watched.var, (16, 1))

    named = variants(trained.spec, np.arange(3 * 64 * 64).reshape(1, 3, 64, 64).astype(np.uint8))
    found = [(one, *seen(corrected if one.name == fault else configured)) for one in named]
    return diagnose(watched, found, trained.spec)


@pytest.mark.parametrize("fault", ["bgr", "squeezed", "nearest"])
def test_an_order_or_a_size_that_leaves_a_third_of_the_misfit_is_not_what_is_wrong(
    photographs: Trained, fault: str
) -> None:
    """Another mix of classes looks so. The divergence is the square of the distance."""
    assert told(photographs, fault, 0.6, 0.6 * math.sqrt(0.4)).likely is None
    found = told(photographs, fault, 0.6, 0.6 * math.sqrt(0.2)).likely
    assert found is not None
    assert found.variant.name == fault


def test_the_order_with_mean_and_std_is_named_only_where_much_tells(photographs: Trained) -> None:
    assert told(photographs, "bgr, mean and std too", 0.9, 0.1).likely is None
    found = told(photographs, "bgr, mean and std too", 1.2, 0.1).likely
    assert found is not None
    assert found.variant.fault == "channel order"
