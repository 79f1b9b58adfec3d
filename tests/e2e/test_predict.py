"""The shipped model over HTTP: right, as exact as the unfolded network, and the same in every form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import (
    JSON,
    MULTIPART,
    OCTETS,
    Digits,
    as_json,
    b64_json,
    decoded,
    encoded,
    multipart,
    npy,
)
from .server import NPY

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Service

pytestmark = pytest.mark.e2e

ROWS = 5
TOLERANCE = 1e-5


def assert_same(answers: np.ndarray, expected: np.ndarray) -> None:
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, rtol=TOLERANCE, atol=TOLERANCE)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def test_held_out_digits_are_recognised(service: Service, digits: Digits) -> None:
    answers = [service.predict(encoded(row)).json()["predictions"] for row in digits.pixels]
    assert all(len(predictions) == 1 for predictions in answers)
    labels = [int(predictions[0]["label"]) for predictions in answers]
    assert np.mean(labels == digits.labels) >= 0.985
    disagreements = np.flatnonzero(labels != digits.logits.argmax(axis=1))
    assert disagreements.size == 0, "the unfolded network answers these rows otherwise"


def test_logits_are_those_of_the_unfolded_network(service: Service, digits: Digits) -> None:
    rows_in_one_request = 500
    for first in range(0, len(digits.pixels), rows_in_one_request):
        some = slice(first, first + rows_in_one_request)
        assert_same(service.logits(npy(digits.pixels[some]), NPY), digits.logits[some])
        assert_same(service.logits(npy(digits.inputs[some]), NPY), digits.logits[some])


@pytest.mark.parametrize("row", range(ROWS))
def test_png_answers_alone_what_it_answers_among_others(service: Service, digits: Digits, row: int) -> None:
    assert_same(service.logits(encoded(digits.pixels[row])), digits.logits[row : row + 1])


FORMS: dict[str, tuple[str, dict[str, str], Callable[[Digits], bytes]]] = {
    "multipart of PNGs": (MULTIPART, {}, lambda d: multipart([encoded(row) for row in d.pixels[:ROWS]])),
    "JSON of float32": (JSON, {}, lambda d: as_json(d.inputs[:ROWS].tolist())),
    "JSON of float32 without the channel": (JSON, {}, lambda d: as_json(d.inputs[:ROWS, 0].tolist())),
    "JSON of uint8": (JSON, {"dtype": "uint8"}, lambda d: as_json(d.pixels[:ROWS].tolist())),
    "JSON of base64 PNGs": (JSON, {}, lambda d: b64_json([encoded(row) for row in d.pixels[:ROWS]])),
    "npy of uint8": (NPY, {}, lambda d: npy(d.pixels[:ROWS])),
    "npy of float32": (NPY, {}, lambda d: npy(d.inputs[:ROWS])),
    "npy of big-endian float32": (NPY, {}, lambda d: npy(d.inputs[:ROWS].astype(">f4"))),
    "npy in Fortran's order": (NPY, {}, lambda d: npy(np.asfortranarray(d.inputs[:ROWS]))),
    "octets of uint8": (OCTETS, {"dtype": "uint8"}, lambda d: d.pixels[:ROWS].tobytes()),
    "octets of float32": (OCTETS, {}, lambda d: d.inputs[:ROWS].tobytes()),
    "a content type with parameters": (f"{OCTETS.upper()}; x=y", {}, lambda d: d.inputs[:ROWS].tobytes()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_answers_in_order(service: Service, digits: Digits, form: str) -> None:
    media_type, query, body = FORMS[form]
    assert_same(service.logits(body(digits), media_type, **query), digits.logits[:ROWS])


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_npy_of_a_single_row_is_answered_with_one_row(service: Service, digits: Digits, kind: str) -> None:
    row = {"uint8": digits.pixels, "float32": digits.inputs}[kind][3]
    assert_same(service.logits(npy(row), NPY), digits.logits[3:4])


def test_jpeg_answers_what_its_decoded_pixels_answer(service: Service, digits: Digits) -> None:
    jpegs = [encoded(row, "JPEG") for row in digits.pixels[:ROWS]]
    expected = service.logits(npy(np.stack([decoded(jpeg) for jpeg in jpegs])), NPY)
    alone = np.concatenate([service.logits(jpeg, "image/jpeg") for jpeg in jpegs])
    for answers in (
        alone,
        service.logits(multipart(jpegs), MULTIPART),
        service.logits(b64_json(jpegs), JSON),
    ):
        assert_same(answers, expected)


def test_labels_are_the_default_and_carry_index_and_probability(service: Service, digits: Digits) -> None:
    predictions = service.predict(npy(digits.pixels[:ROWS]), NPY).json()["predictions"]
    for prediction, logits in zip(predictions, digits.logits, strict=False):
        assert set(prediction) == {"label", "index", "score"}
        assert prediction["index"] == logits.argmax()
        assert prediction["label"] == str(logits.argmax())
        assert prediction["score"] == pytest.approx(softmax(logits[None]).max(), abs=TOLERANCE)
    assert service.array(npy(digits.pixels[:ROWS]), NPY).tolist() == [[p["index"]] for p in predictions]


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_whole_vectors_are_the_same_in_json_and_npy(service: Service, digits: Digits, output: str) -> None:
    body = npy(digits.pixels[:ROWS])
    predictions = service.predict(body, NPY, output=output).json()["predictions"]
    vectors = np.array([prediction[output] for prediction in predictions], np.float32)
    expected = digits.logits[:ROWS]
    assert_same(vectors, expected if output == "logits" else softmax(expected))
    assert_same(service.array(body, NPY, output=output), vectors)
    assert {"label", "index", "score"} < set(predictions[0])


@pytest.mark.parametrize("accept", [f"{NPY};q=0, {JSON}", f"{JSON}, {NPY};q=0.5", "application/*"])
def test_an_array_is_not_for_who_wants_json_more(service: Service, digits: Digits, accept: str) -> None:
    answer = service.predict(encoded(digits.pixels[0]), accept=accept)
    assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize(("top_k", "shown"), [(2, 2), (10, 10), (1000, 10)])
def test_top_k_lists_the_best_classes_first(service: Service, digits: Digits, top_k: int, shown: int) -> None:
    body = npy(digits.pixels[:ROWS])
    predictions = service.predict(body, NPY, top_k=top_k).json()["predictions"]
    best = np.argsort(-digits.logits[:ROWS], axis=1)[:, :shown].tolist()
    assert [[choice["index"] for choice in p["top"]] for p in predictions] == best
    assert all(p["top"][0] == {name: p[name] for name in ("label", "index", "score")} for p in predictions)
    scores = [choice["score"] for choice in predictions[0]["top"]]
    assert scores == sorted(scores, reverse=True)
    assert service.array(body, NPY, top_k=top_k).tolist() == best


def test_version_can_be_named_in_the_address(service: Service, digits: Digits) -> None:
    headers = {"Content-Type": "image/png"}
    for address in ("/v1/models/digits/predict", "/v1/models/digits/versions/1/predict"):
        answer = service.http.post(address, content=encoded(digits.pixels[0]), headers=headers).json()
        assert (answer["model"], answer["version"]) == ("digits", 1)
        assert answer["predictions"][0]["index"] == digits.logits[0].argmax()


def test_answer_says_how_long_each_stage_took(service: Service, digits: Digits) -> None:
    timing = service.predict(encoded(digits.pixels[0])).json()["timing_ms"]
    assert set(timing) == {"decode", "queue", "compute", "total"}
    assert all(milliseconds >= 0 for milliseconds in timing.values())
    rounding = 0.002
    stages = ("decode", "queue", "compute")
    assert timing["total"] >= sum(timing[stage] for stage in stages) - rounding
