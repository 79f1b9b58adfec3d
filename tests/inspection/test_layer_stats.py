"""What is said of a norm is what its vectors say, broken ones included."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.inspection.layer_stats import Histogram, Summary, histogram, summary, with_derived

EPS = 1e-5
RANDOM = np.random.default_rng(0)


def stored(dtype: str = "float32") -> dict[str, np.ndarray]:
    vectors = {
        "running_mean": RANDOM.normal(size=16),
        "running_var": RANDOM.uniform(0.01, 4, 16),
        "weight": RANDOM.normal(size=16),
        "bias": RANDOM.normal(size=16),
    }
    return {name: vector.astype(dtype) for name, vector in vectors.items()}


# Derived vectors


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_scale_and_shift_are_the_definition_in_float64(dtype: str) -> None:
    vectors = stored(dtype)
    mean, var, weight, bias = (vectors[name].astype(np.float64) for name in vectors)
    shown = with_derived(vectors, EPS)
    scale = weight / np.sqrt(var + EPS)
    np.testing.assert_allclose(shown["scale"], scale, rtol=1e-15)
    np.testing.assert_allclose(shown["shift"], bias - mean * scale, rtol=1e-12)
    assert (shown["scale"].dtype.name, shown["shift"].dtype.name) == ("float64", "float64")


def test_they_say_what_the_norm_does_to_a_number() -> None:
    vectors = stored("float64")
    shown = with_derived(vectors, EPS)
    x = RANDOM.normal(size=(5, 16))
    normal = (x - vectors["running_mean"]) / np.sqrt(vectors["running_var"] + EPS)
    y = normal * vectors["weight"] + vectors["bias"]
    np.testing.assert_allclose(x * shown["scale"] + shown["shift"], y, atol=1e-12)


def test_stored_vectors_are_shown_as_they_are() -> None:
    vectors = stored()
    before = {name: vector.copy() for name, vector in vectors.items()}
    shown = with_derived(vectors, EPS)
    assert list(shown) == ["running_mean", "running_var", "weight", "bias", "scale", "shift"]
    for name, vector in before.items():
        assert shown[name] is vectors[name]
        np.testing.assert_array_equal(vectors[name], vector)
    assert list(vectors) == list(before)


def test_a_missing_weight_is_one_and_a_missing_bias_is_zero() -> None:
    vectors = stored("float64")
    whole = {**vectors, "weight": np.ones(16), "bias": np.zeros(16)}
    for gone in ({"weight", "bias"}, {"weight"}, {"bias"}):
        shown = with_derived({name: v for name, v in vectors.items() if name not in gone}, EPS)
        expected = with_derived({name: whole[name] if name in gone else vectors[name] for name in whole}, EPS)
        np.testing.assert_array_equal(shown["scale"], expected["scale"])
        np.testing.assert_array_equal(shown["shift"], expected["shift"])
        assert gone.isdisjoint(shown)


@pytest.mark.parametrize("missing", [["running_mean"], ["running_var"], ["running_mean", "running_var"]])
def test_nothing_is_derived_without_running_statistics(missing: list[str]) -> None:
    vectors = {name: vector for name, vector in stored().items() if name not in missing}
    assert list(with_derived(vectors, EPS)) == list(vectors)


def test_a_norm_without_vectors_shows_none() -> None:
    assert with_derived({}, EPS) == {}


def test_a_broken_checkpoint_is_shown_as_it_is_without_a_warning() -> None:
    broken = {
        "running_mean": np.array([0.0, np.nan, np.inf, 1.0], np.float32),
        "running_var": np.array([-1.0, 1.0, 1.0, np.inf], np.float32),
    }
    shown = with_derived(broken, 0.0)
    np.testing.assert_array_equal(shown["scale"], [np.nan, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(shown["shift"], [np.nan, np.nan, -np.inf, 0.0])
    dead = with_derived({"running_mean": np.zeros(1, np.float32), "running_var": np.zeros(1)}, 0.0)
    np.testing.assert_array_equal(dead["scale"], [np.inf])


# Summaries


def test_a_summary_has_four_numbers_in_float64() -> None:
    said = summary(np.array([1, 2, 3, 6], np.float16))
    assert said == Summary(min=1.0, max=6.0, mean=3.0, std=float(np.sqrt(3.5)))


def test_there_is_no_summary_of_what_is_not_there() -> None:
    assert summary(None) is None


def test_a_float16_vector_does_not_overflow_its_own_summary() -> None:
    said = summary(np.full(1000, 60000, np.float16))
    assert said == Summary(min=60000.0, max=60000.0, mean=60000.0, std=0.0)


def test_what_is_not_finite_is_null_in_json() -> None:
    said = summary(np.array([np.nan, np.inf, 1.0], np.float32))
    assert said is not None
    assert json.loads(said.model_dump_json()) == dict.fromkeys(["min", "max", "mean", "std"])


def test_a_summary_cannot_be_changed() -> None:
    said = summary(np.ones(2))
    assert said is not None
    with pytest.raises(ValueError, match="frozen"):
        setattr(said, "min", 0.0)  # noqa: B010 - that mypy refuses it too is known


# Histograms


def test_every_value_is_counted_between_the_smallest_and_the_largest() -> None:
    shown = histogram(np.array([0, 1, 2, 3, 4, 4], np.float32), bins=4)
    assert shown == Histogram(edges=[0.0, 1.0, 2.0, 3.0, 4.0], counts=[1, 1, 1, 3])


def test_equal_values_are_one_bar() -> None:
    shown = histogram(np.full(5, 3.0))
    assert max(shown.counts) == sum(shown.counts) == 5
    assert shown.edges[0] < 3.0 < shown.edges[-1]


@pytest.mark.parametrize("vector", [[], [np.nan, np.inf, -np.inf]])
def test_without_a_finite_value_every_count_is_zero(vector: list[float]) -> None:
    shown = histogram(np.array(vector, np.float32))
    assert shown.counts == [0] * 32
    assert len(shown.edges) == 33


def test_only_finite_values_are_counted() -> None:
    shown = histogram(np.array([np.nan, 0, 1, np.inf, -np.inf], np.float32), bins=2)
    assert shown == Histogram(edges=[0.0, 0.5, 1.0], counts=[1, 1])


@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_any_float32_vector_has_a_histogram(vector: np.ndarray) -> None:
    shown = histogram(vector)
    assert sum(shown.counts) == np.isfinite(vector).sum()
    assert shown.edges == sorted(shown.edges)
    assert len(shown.edges) == len(shown.counts) + 1
    assert np.isfinite(shown.edges).all()


def test_one_large_number_has_a_histogram() -> None:
    assert sum(histogram(np.array([1e15], np.float32)).counts) == 1


@pytest.mark.parametrize(
    "vector",
    [[1.0, np.nextafter(1.0, 2.0)], [0.0, 5e-324]],
    ids=["neighbours", "subnormal"],
)
def test_a_float64_vector_has_a_histogram_however_narrow(vector: list[float]) -> None:
    """Scale and shift are float64: two channels may well differ in the last bit."""
    assert sum(histogram(np.array(vector)).counts) == 2
