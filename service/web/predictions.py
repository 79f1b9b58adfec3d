"""Predictions: network answers written as JSON or as an array."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from service.errors import InputTooLarge, InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.store.manifest import Output
    from service.web.schemas import PredictQuery

_MOST_CLASSES = 1 << 16
_MOST_NUMBERS = 1 << 22


def refuse_non_finite(answers: np.ndarray) -> None:
    """Raise `InvalidTensor` where an answer overflowed: its inputs are far out of range."""
    if math.isfinite(answers.sum(dtype=np.float64)):  # no sum of float32 overflows here
        return
    finite = np.isfinite(answers.reshape(len(answers), -1)).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidTensor(f"row {row}: the network's answer is not finite; its inputs are out of range")


def refuse_long(rows: int, row_shape: Sequence[int], output: Output, query: PredictQuery) -> None:
    """Raise `InputTooLarge` where JSON of so many answers would hold everybody else up while it is written.

    Of `top_k` or of whole vectors; 64Ki classes or 4Mi numbers take some 50 and 100 ms.
    """
    if query.top_k > 1 and output.task == "classification":
        refuse_classes(rows, min(query.top_k, math.prod(row_shape)))
    if output.task == "tensor" or query.output != "labels":
        refuse_numbers(rows, row_shape)


def refuse_classes(rows: int, classes: int) -> None:
    """Raise `InputTooLarge` where so many classes of each row would take long to write."""
    if rows * classes > _MOST_CLASSES:
        raise InputTooLarge(
            f"{rows} rows with {classes} classes each are too much to write at once; "
            "send fewer rows, or ask for whole vectors as an array"
        )


def refuse_numbers(rows: int, row_shape: Sequence[int]) -> None:
    """Raise `InputTooLarge` where JSON of whole answers would take long to write."""
    if rows * math.prod(row_shape) > _MOST_NUMBERS:
        raise InputTooLarge(
            f"{rows} rows of {math.prod(row_shape)} numbers each are too much JSON; "
            "send fewer rows, or ask for an array"
        )


def as_json(
    answers: np.ndarray, output: Output, labels: Sequence[str] | None, query: PredictQuery
) -> list[Any]:
    """One prediction per row of float32 `answers`, `[N, classes]` for a classification."""
    if output.task == "tensor":
        return [{"values": np.ascontiguousarray(row)} for row in answers]
    names = labels or [str(index) for index in range(answers.shape[1])]
    probabilities = softmax(answers)
    best = top(answers, query.top_k)  # by logits: probabilities round to ties
    return [
        _prediction(row, names, probabilities[number], answers[number], query)
        for number, row in enumerate(best.tolist())
    ]


def as_array(answers: np.ndarray, output: Output, query: PredictQuery) -> np.ndarray:
    """Class indices int64 `[N, top_k]`, or probabilities or logits float32, as the query asks."""
    if output.task == "tensor" or query.output == "logits":
        return answers
    return softmax(answers) if query.output == "probabilities" else top(answers, query.top_k)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[N, classes]`, float32, computed in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """The indices of the k largest scores per row, best first; of equal ones, the smaller index first."""
    if k == 1:
        best: np.ndarray = np.argmax(scores, axis=1, keepdims=True)
        return best
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def dump_json(content: dict[str, Any]) -> bytes:
    """JSON in which a float32 has its shortest digits, and what is not finite is null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def dump_array(array: np.ndarray) -> bytes:
    """The array as an `.npy` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _prediction(
    best: list[int], names: Sequence[str], probabilities: np.ndarray, logits: np.ndarray, query: PredictQuery
) -> dict[str, Any]:
    choices = [{"label": names[i], "index": i, "score": probabilities[i]} for i in best]
    prediction = dict(choices[0])
    if query.top_k > 1:
        prediction["top"] = choices
    if query.output == "probabilities":
        prediction["probabilities"] = probabilities
    if query.output == "logits":
        prediction["logits"] = logits
    return prediction
