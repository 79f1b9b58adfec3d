"""A norm is flagged for what is odd about it, with the number and the limit, and for nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inspection.flag import Flag, Lost, Surroundings
from service.inspection.flags import flags
from service.inspection.thresholds import Thresholds

EPS = 1e-5
RELU = Surroundings("relu")


def sound(channels: int = 8, **changed: Any) -> dict[str, np.ndarray]:
    """The float32 vectors of a norm with nothing odd but what is changed: `{channel: value}`."""
    random = np.random.default_rng(0)
    vectors = {
        "running_mean": random.normal(size=channels),
        "running_var": random.uniform(0.5, 2, channels),
        "weight": random.uniform(0.5, 1.5, channels),
        "bias": random.uniform(-0.5, 0.5, channels),
    }
    for name, values in changed.items():
        for channel, value in values.items():
            vectors[name][channel] = value
    return {name: vector.astype(np.float32) for name, vector in vectors.items()}


def the_only(found: list[Flag]) -> Flag:
    (flag,) = found
    assert json.loads(flag.model_dump_json()) == flag.model_dump()  # every number is a JSON number
    return flag


def test_a_sound_norm_has_no_flag() -> None:
    assert flags(sound(), EPS, RELU) == []


def test_a_norm_without_vectors_has_no_flag() -> None:
    assert flags({}, EPS) == []


# non_finite


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_an_error(name: str, value: float) -> None:
    flag = the_only(flags(sound(8, **{name: {3: value}}), EPS, RELU))
    assert (flag.flag, flag.level, flag.channels, flag.count) == ("non_finite", "error", [3], 1)
    assert (flag.value, flag.limit) == (1, 0)


@pytest.mark.parametrize("variance", [-1.0, -1e-7])
def test_a_negative_variance_is_an_error_even_where_eps_hides_it(variance: float) -> None:
    flag = the_only(flags(sound(running_var={0: variance, 5: variance}), EPS, RELU))
    assert (flag.flag, flag.channels, flag.value) == ("non_finite", [0, 5], 2)
    assert "2 channels" in flag.message


def test_a_variance_of_0_without_eps_divides_by_0_and_is_an_error() -> None:
    assert the_only(flags(sound(running_var={1: 0.0}), 0.0, RELU)).flag == "non_finite"


def test_the_largest_float32_is_a_number() -> None:
    assert flags(sound(running_mean={3: 3.4e38}), EPS, RELU) == []


def test_a_layer_of_nothing_but_nan_has_just_that_flag() -> None:
    flag = the_only(flags({name: vector * np.nan for name, vector in sound().items()}, EPS, RELU))
    assert (flag.flag, flag.count) == ("non_finite", 8)


# untrained


def fresh(channels: int = 4) -> dict[str, np.ndarray]:
    return {"running_mean": np.zeros(channels, np.float32), "running_var": np.ones(channels, np.float32)}


def test_statistics_as_they_are_made_are_a_warning() -> None:
    flag = the_only(flags(fresh(), EPS, RELU))
    assert (flag.flag, flag.level, flag.channels, flag.count) == ("untrained", "warning", [0, 1, 2, 3], 4)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_one_other_number_means_that_it_was_trained(name: str) -> None:
    vectors = fresh()
    vectors[name][2] = np.nextafter(vectors[name][2], np.float32(2))
    assert flags(vectors, EPS, RELU) == []


# constant_channel


def test_a_weight_far_below_the_median_makes_a_constant() -> None:
    vectors = sound(weight={2: 1e-6, 6: 0.0}, bias={2: 0.25, 6: 0.5})
    flag = the_only(flags(vectors, EPS))
    assert (flag.flag, flag.level, flag.channels) == ("constant_channel", "note", [2, 6])
    assert (flag.value, flag.limit) == (0, 1e-3)
    assert "the bias, 0.25 to 0.5" in flag.message
    assert "relu" not in flag.message


def test_it_says_which_constants_the_relu_makes_0() -> None:
    # Also flagged as never firing: one of the two constants is below 0.
    weight, bias = dict.fromkeys((2, 3, 6), 1e-6), {2: 0.25, 3: 0.5, 6: -0.5}
    constant, never = flags(sound(weight=weight, bias=bias), EPS, RELU)
    assert constant.message.endswith("the relu behind makes 1 of 3 of these 0")
    assert never.channels == [6]


def test_the_limit_is_held_against_the_median_of_absolute_weights() -> None:
    weights = np.array([-1.0, 2.0, -3.0, 0.0, 0.0], np.float32)  # the median of the sizes is 1
    for weight, expected in ((0.00099, [3, 4]), (0.00101, [])):
        weights[3:] = weight
        found = flags({**sound(5), "weight": weights}, EPS)
        assert [channel for flag in found for channel in flag.channels] == expected
    assert the_only(flags({**sound(5), "weight": weights}, EPS, None, Thresholds(0.01))).limit == 0.01


def test_channels_of_weight_0_are_constant_even_where_most_are() -> None:
    """As in networks that were pruned, or that start with their last norms at 0."""
    flag = the_only(flags(sound(weight=dict.fromkeys(range(1, 8), 0.0)), EPS))
    assert (flag.flag, flag.count) == ("constant_channel", 7)


# eps_dominates


def test_a_variance_below_eps_is_a_note() -> None:
    flag = the_only(flags(sound(running_var={4: 9e-6}, weight={4: 0.01}), EPS, RELU))
    assert (flag.flag, flag.level, flag.channels) == ("eps_dominates", "note", [4])
    assert flag.value == pytest.approx(9e-6)
    assert flag.limit == EPS


def test_a_variance_of_eps_is_none() -> None:
    vectors = {name: vector.astype(np.float64) for name, vector in sound(weight={4: 0.01}).items()}
    vectors["running_var"][4] = EPS
    assert flags(vectors, EPS, RELU) == []


def test_a_channel_below_eps_that_is_amplified_is_a_warning() -> None:
    """Its gain is then that of an outlier too."""
    loud, outlier = flags(sound(running_var={4: 1e-6, 5: 1e-6}, weight={5: 0.01}), EPS, RELU)
    assert (loud.flag, loud.level, loud.channels, loud.limit) == ("eps_dominates", "warning", [4], 20)
    assert loud.value == outlier.value > 100
    assert loud.message.startswith("2 channels with a running variance")
    assert (outlier.flag, outlier.level, outlier.channels) == ("outlier_gain", "note", [4])


# never_fires


@pytest.mark.parametrize(("bias", "fires"), [(-3.08, True), (-3.10, False)])
def test_a_channel_that_is_positive_once_in_a_thousand_never_fires(bias: float, fires: bool) -> None:
    # The normal distribution is below -3.0902 with a probability of 0.001.
    found = flags(sound(bias={1: 2 * bias}, weight={1: -2.0}), EPS, RELU)
    if fires:
        assert found == []
    else:
        flag = the_only(found)
        assert (flag.flag, flag.level, flag.channels, flag.limit) == ("never_fires", "note", [1], 1e-3)
        assert flag.value == pytest.approx(0.000968, rel=1e-3)  # table of the normal distribution at -3.10


def test_it_is_a_warning_above_a_quarter_of_the_layer() -> None:
    for count, level in ((2, "note"), (3, "warning")):
        flag = the_only(flags(sound(bias=dict.fromkeys(range(count), -9.0)), EPS, Surroundings("relu6")))
        assert (flag.flag, flag.level, flag.count) == ("never_fires", level, count)
    assert (flag.value, flag.limit) == (3 / 8, 0.25)


@pytest.mark.parametrize("activation", [None, "silu", "gelu", "leaky_relu"])
def test_only_a_relu_directly_behind_makes_channels_silent(activation: str | None) -> None:
    assert flags(sound(bias={1: -9.0}), EPS, Surroundings(activation)) == []


# outlier_gain


def test_a_gain_over_twenty_times_the_median_is_a_note() -> None:
    vectors = {**sound(), "running_var": np.ones(8), "weight": np.ones(8)}
    for weight, expected in ((19.9, []), (20.1, [7])):
        vectors["weight"][7] = -weight
        assert [channel for flag in flags(vectors, EPS, RELU) for channel in flag.channels] == expected
    flag = the_only(flags(vectors, EPS, RELU))
    assert (flag.flag, flag.level) == ("outlier_gain", "note")
    assert flag.value == pytest.approx(20.1)
    assert flag.limit == 20


def test_a_small_variance_is_a_gain_too() -> None:
    vectors = {**sound(), "running_var": np.ones(8), "weight": np.ones(8)}
    vectors["running_var"][0] = 1 / 900
    assert the_only(flags(vectors, 1e-9, RELU)).value == pytest.approx(30, rel=1e-3)


def test_the_gains_of_a_layer_that_is_mostly_pruned_have_no_median_to_be_held_against() -> None:
    found = flags(sound(weight=dict.fromkeys(range(5), 0.0)), EPS)
    assert [flag.flag for flag in found] == ["constant_channel"]


# precision


def lost(overflowing: int = 0, vanishing: int = 0, *, is_own: bool = True) -> Surroundings:
    counts = np.zeros(8, int), np.zeros(8, int)
    counts[0][5], counts[1][6] = overflowing, vanishing
    return Surroundings("relu", Lost("conv1", "float16", *counts, np.full(8, 900), is_own=is_own))


def test_weights_that_overflow_are_a_warning_with_their_number() -> None:
    flag = the_only(flags(sound(), EPS, lost(overflowing=3)))
    assert (flag.flag, flag.level, flag.channels) == ("precision", "warning", [5])
    assert (flag.value, flag.limit) == (3, 0)
    assert flag.message == "3 folded weights overflow in 1 channel of conv1: float16"


def test_weights_that_become_0_are_a_warning_where_they_are_more_than_one_in_a_hundred() -> None:
    assert flags(sound(), EPS, lost(vanishing=9)) == []
    flag = the_only(flags(sound(), EPS, lost(vanishing=10)))
    assert (flag.flag, flag.channels, flag.limit) == ("precision", [6], 0.01)
    assert flag.value == pytest.approx(10 / 900)
    assert flags(sound(), EPS, lost(vanishing=1), Thresholds(lost_weights=0))[0].flag == "precision"


def test_channels_of_another_layer_are_counted_but_not_named() -> None:
    flag = the_only(flags(sound(), EPS, lost(overflowing=3, is_own=False)))
    assert (flag.channels, flag.count) == ([], 1)


# All of them


def test_sixteen_channels_are_listed_and_all_are_counted() -> None:
    flag = the_only(flags(sound(100, bias=dict.fromkeys(range(20), -9.0)), EPS, RELU))
    assert (flag.channels, flag.count) == ([*range(16)], 20)


def test_the_gravest_flag_comes_first() -> None:
    vectors = sound(bias={1: -9.0, 2: math.nan}, running_var={3: 1e-7}, weight={3: 0.01})
    assert [flag.level for flag in flags(vectors, EPS, RELU)] == ["error", "note", "note"]
    silent = sound(bias=dict.fromkeys(range(4), -9.0), weight={7: 0.0})
    assert [flag.flag for flag in flags(silent, EPS, RELU)][:2] == ["never_fires", "constant_channel"]


def test_medians_are_those_of_the_channels_that_are_numbers() -> None:
    weights = {**dict.fromkeys(range(4), math.nan), 4: 5e-4, 5: 1.0, 6: 1.0, 7: 1.0}
    assert [flag.flag for flag in flags(sound(weight=weights), EPS)] == ["non_finite", "constant_channel"]


def test_a_flag_lies_in_no_channel_that_is_no_number() -> None:
    vectors = sound(weight={0: math.nan, 1: 0.0}, running_var={0: 1e-9}, bias={0: -9.0, 1: 1.0})
    found = flags(vectors, EPS, RELU)
    assert [(flag.flag, flag.channels) for flag in found] == [("non_finite", [0]), ("constant_channel", [1])]


def test_a_norm_without_weight_and_bias_is_looked_at_as_one_of_1_and_0() -> None:
    vectors = {name: sound()[name] for name in ("running_mean", "running_var")}
    assert flags(vectors, EPS, RELU) == []
    vectors["running_var"][2] = 1e-12
    assert [flag.flag for flag in flags(vectors, EPS, RELU)] == ["eps_dominates", "outlier_gain"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(width=32)] * 4), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e-12, 1e-5, 1.0]),
    st.sampled_from([None, "relu"]),
)
def test_any_numbers_have_flags_that_json_can_hold(
    rows: list[tuple[float, ...]], eps: float, activation: str | None
) -> None:
    names = ("running_mean", "running_var", "weight", "bias")
    vectors = dict(zip(names, np.array(rows, np.float32).T, strict=True))
    for flag in flags(vectors, eps, Surroundings(activation)):
        assert math.isfinite(flag.value)
        assert 1 <= flag.count <= len(rows)
        assert flag.channels == sorted(set(flag.channels) & set(range(len(rows))))


def test_float16_vectors_are_looked_at_in_float64() -> None:
    vectors = {name: vector.astype(np.float16) for name, vector in sound(running_var={2: 6e4}).items()}
    assert flags(vectors, EPS, RELU) == []
