"""An answer is written as the numbers that the network gave, best first, whatever form was asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import scipy.special  # type: ignore[import-untyped]  # it ships no types; scikit-learn brings it
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import InputTooLarge, InvalidTensor
from service.store.manifest import Output
from service.web.predictions import (
    as_array,
    as_json,
    dump_array,
    dump_json,
    refuse_long,
    refuse_non_finite,
    softmax,
    top,
)
from service.web.schemas import PredictQuery

CLASSES = Output()
TENSOR = Output(task="tensor")
LOGITS = np.array([[0.5, 2.0, -1.0], [3.0, 3.0, 3.0]], np.float32)
NAMES = ["cat", "dog", "eel"]
FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12))


def query(**parameters: Any) -> PredictQuery:
    return PredictQuery.model_validate(parameters)


def written(answers: np.ndarray, described: Output = CLASSES, **parameters: Any) -> list[Any]:
    """As a client reads it."""
    predictions = as_json(answers, described, NAMES if described is CLASSES else None, query(**parameters))
    read: list[Any] = json.loads(dump_json({"predictions": predictions}))["predictions"]
    return read


# Softmax and top


@given(arrays(np.float32, SHAPES, elements=FINITE))
def test_softmax_is_scipy_s(logits: np.ndarray) -> None:
    ours, theirs = softmax(logits), scipy.special.softmax(logits.astype(np.float64), axis=1)
    subnormal = 2e-45  # where float32 has fewer digits
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=subnormal)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-5)


def test_softmax_of_the_largest_numbers_does_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    assert softmax(np.array([[largest, -largest, largest]], np.float32)).tolist() == [[0.5, 0.0, 0.5]]


def test_of_equal_scores_the_smaller_index_comes_first() -> None:
    scores = np.array([[1, 3, 3, 1, 3], [0, 0, 0, 0, 0]], np.float32)
    assert top(scores, 4).tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("k", [1, 3, 4, 1000])
def test_there_are_never_more_than_all_classes(k: int) -> None:
    assert top(LOGITS, k).shape == (2, min(k, 3))


@given(arrays(np.float32, SHAPES, elements=FINITE), st.integers(1, 12))
def test_top_is_a_prefix_of_the_whole_order(scores: np.ndarray, k: int) -> None:
    best = top(scores, k)
    for row, order in zip(scores, best, strict=True):
        assert len(set(order.tolist())) == min(k, scores.shape[1])
        assert row[order].tolist() == sorted(row.tolist(), reverse=True)[:k]


@pytest.mark.parametrize(
    "logits",
    [[1e-8, 2e-8], [0.0, -200.0, -150.0], [0.0, 100.0, -100.0, -50.0]],
    ids=["nearly equal", "far behind", "both"],
)
@pytest.mark.parametrize("form", ["json", "npy"])
def test_classes_are_ranked_by_what_the_network_said(logits: list[float], form: str) -> None:
    """Probabilities round to equal float32 numbers where the logits still differ."""
    answers = np.array([logits], np.float32)
    expected = np.argsort(-answers[0], kind="stable").tolist()
    if form == "npy":
        got = as_array(answers, CLASSES, query(top_k=9))[0].tolist()
    else:
        names = [str(index) for index in range(len(logits))]
        got = [one["index"] for one in as_json(answers, CLASSES, names, query(top_k=9))[0]["top"]]
    assert got == expected


# JSON


def test_a_row_says_its_best_class() -> None:
    probability = float(str(softmax(LOGITS)[0, 1]))
    assert written(LOGITS) == [
        {"label": "dog", "index": 1, "score": probability},
        {"label": "cat", "index": 0, "score": 0.33333334},
    ]


def test_more_classes_follow_best_first_when_asked_for() -> None:
    first = written(LOGITS, top_k=2)[0]
    assert [choice["label"] for choice in first["top"]] == ["dog", "cat"]
    assert first["top"][0] == {name: first[name] for name in ("label", "index", "score")}


def test_asking_for_more_classes_than_there_are_gives_all() -> None:
    assert [len(row["top"]) for row in written(LOGITS, top_k=1000)] == [3, 3]


def test_whole_vectors_are_written_in_the_order_of_the_classes() -> None:
    assert written(LOGITS, output="logits")[0]["logits"] == [0.5, 2.0, -1.0]
    assert written(LOGITS, output="probabilities")[0]["probabilities"] == [
        float(str(value)) for value in softmax(LOGITS)[0]
    ]
    assert set(written(LOGITS)[0]) == {"label", "index", "score"}


def test_without_labels_a_class_is_called_by_its_number() -> None:
    assert as_json(LOGITS, CLASSES, None, query())[0]["label"] == "1"


@given(arrays(np.float32, (1, 5), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_a_float32_comes_back_bit_for_bit_from_its_shortest_digits(logits: np.ndarray) -> None:
    text = dump_json({"row": logits[0]})
    read = np.array(json.loads(text)["row"], np.float32)
    assert read.tobytes() == logits[0].tobytes()


def test_a_tensor_is_written_as_nested_values() -> None:
    answers = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    assert written(answers, TENSOR) == [{"values": answers[0].tolist()}]


def test_a_tensor_may_lie_in_memory_as_channels_last() -> None:
    """A convolution's answer does, on every backend that computes in that order."""
    answers = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4).transpose(0, 3, 1, 2)
    assert not answers.flags.c_contiguous
    assert written(answers, TENSOR) == [{"values": answers[0].tolist()}]


# npy


@pytest.mark.parametrize(
    ("parameters", "dtype", "shape"),
    [
        ({}, "int64", (2, 1)),
        ({"top_k": 2}, "int64", (2, 2)),
        ({"top_k": 9}, "int64", (2, 3)),
        ({"output": "probabilities"}, "float32", (2, 3)),
        ({"output": "logits", "top_k": 2}, "float32", (2, 3)),
    ],
)
def test_an_array_holds_what_the_query_asks_for(
    parameters: dict[str, Any], dtype: str, shape: tuple[int, ...]
) -> None:
    array = np.load(io.BytesIO(dump_array(as_array(LOGITS, CLASSES, query(**parameters)))))
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)


def test_the_array_of_a_tensor_is_the_answer_itself() -> None:
    answers = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4).transpose(0, 3, 1, 2)
    array = np.load(io.BytesIO(dump_array(as_array(answers, TENSOR, query(output="probabilities")))))
    np.testing.assert_array_equal(array, answers)


# Refused


@pytest.mark.parametrize(
    ("most_rows", "shape", "described", "parameters"),
    [
        (65_536 // 1000, [1000], CLASSES, {"top_k": 1000}),
        (65_536 // 10, [10], CLASSES, {"top_k": 1000}),
        (65_536 // 5, [1000], CLASSES, {"top_k": 5}),
        (2**22 // 1000, [1000], CLASSES, {"output": "probabilities"}),
        (2**22 // 1000, [1000], CLASSES, {"output": "logits"}),
        (2**22 // (21 * 64 * 64), [21, 64, 64], TENSOR, {}),
    ],
)
def test_more_json_than_can_be_written_in_a_moment_is_refused(
    most_rows: int, shape: list[int], described: Output, parameters: dict[str, Any]
) -> None:
    refuse_long(most_rows, shape, described, query(**parameters))
    with pytest.raises(InputTooLarge, match=f"^{most_rows + 1} rows .* too much "):
        refuse_long(most_rows + 1, shape, described, query(**parameters))


def test_best_classes_alone_are_never_too_much_json() -> None:
    refuse_long(1_000_000, [1000], CLASSES, query())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_refused_with_its_row(value: float) -> None:
    answers = np.zeros((3, 2, 2), np.float32)
    refuse_non_finite(answers)
    answers[1:, 0, 1] = value
    with pytest.raises(InvalidTensor, match=r"^row 1: the network's answer is not finite"):
        refuse_non_finite(answers)
