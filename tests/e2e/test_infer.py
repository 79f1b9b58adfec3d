"""Infer over the Open Inference Protocol: the right answers, in every form that the protocol has."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .digits import encoded, npy
from .infer import INFER, LENGTH, Response, binary, body, elements, post, tensor
from .server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from .digits import Digits
    from .server import Service

pytestmark = pytest.mark.e2e

ROWS = 5
VERSION = "/v2/models/digits/versions/1/infer"
PRESSES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}
MEDIA_TYPES = [
    *("", "application/x-www-form-urlencoded", "application/octet-stream"),
    "application/json; charset=utf-8",
]


def assert_right(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def as_bfloat16(array: np.ndarray) -> bytes:
    """Rounded to nearest, as ml_dtypes and torch do it."""
    bits = array.astype("<f4").view("<u4")
    rounded: np.ndarray = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return rounded.astype("<u2").tobytes()


@pytest.mark.parametrize("rows", [1, 3, 500])
@pytest.mark.parametrize("is_nested", [False, True])
def test_numbers_in_json(service: Service, digits: Digits, rows: int, is_nested: bool) -> None:
    for array in (digits.inputs[:rows], digits.pixels[:rows]):
        given = tensor(array, data=array.tolist()) if is_nested else tensor(array)
        found = Response(post(service, body(given)))
        assert_right(found.logits, digits.logits[:rows])
        assert found.is_binary == [False]


@pytest.mark.parametrize("address", [INFER, VERSION])
def test_binary_tensors(service: Service, digits: Digits, address: str) -> None:
    pixels, inputs = digits.pixels[:ROWS], digits.inputs[:ROWS]
    shape, halves = inputs.shape, inputs.astype(np.float16)
    for content, datatype, tolerance in (
        (inputs.tobytes(), "FP32", 1e-5),
        (pixels.tobytes(), "UINT8", 1e-5),
        (halves.tobytes(), "FP16", 2e-2),
        (as_bfloat16(inputs), "BF16", 1e-1),
    ):
        found = Response(post(service, body(binary(content, shape, datatype), tail=content), address))
        assert_right(found.logits, digits.logits[:ROWS], tolerance)
        assert (found.root["model_name"], found.root["model_version"]) == ("digits", "1")


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_encoded_images(service: Service, digits: Digits, shape: tuple[int, ...]) -> None:
    images = [encoded(row) for row in digits.pixels[:ROWS]]
    content = elements(images)
    found = Response(post(service, body(binary(content, shape, "BYTES"), tail=content)))
    assert_right(found.logits, digits.logits[:ROWS])
    texts = [base64.b64encode(image).decode() for image in images]
    given = {"name": "image", "shape": shape, "datatype": "BYTES", "data": texts}
    assert_right(Response(post(service, body(given))).logits, digits.logits[:ROWS])


def test_a_raw_request_is_one_row_and_its_answer_is_binary(service: Service, digits: Digits) -> None:
    found = Response(post(service, (digits.inputs[:1].tobytes(), {LENGTH: "0"})))
    assert_right(found.logits, digits.logits[:1])
    assert found.is_binary == [True]
    assert "id" not in found.root


@pytest.mark.parametrize(
    ("root", "asked", "is_binary"),
    [
        *((None, None, False), (True, None, True), (False, None, False)),
        *((None, True, True), (True, False, False), (False, True, True)),
    ],
)
@pytest.mark.parametrize("is_binary_input", [False, True])
def test_outputs_are_written_as_asked_and_what_is_asked_of_one_wins(
    service: Service,
    digits: Digits,
    root: bool | None,
    asked: bool | None,
    is_binary: bool,
    is_binary_input: bool,
) -> None:
    inputs = digits.inputs[:ROWS]
    content = inputs.tobytes() if is_binary_input else b""
    given = binary(content, inputs.shape, "FP32") if is_binary_input else tensor(inputs)
    more: dict[str, Any] = {} if root is None else {"parameters": {"binary_data_output": root}}
    if asked is not None:
        more["outputs"] = [{"name": "logits", "parameters": {"binary_data": asked}}]
    found = Response(post(service, body(given, tail=content, **more)))
    assert_right(found.logits, digits.logits[:ROWS])
    assert found.is_binary == [is_binary]


@pytest.mark.parametrize("identity", ["7", "", 'Umlaute äöü \u0000 and "quotes"', "x" * 10_000])
def test_the_id_comes_back(service: Service, digits: Digits, identity: str) -> None:
    found = Response(post(service, body(tensor(digits.inputs[:1]), id=identity)))
    assert found.root["id"] == identity


@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("classes", [1, 3, 10])
def test_classes_are_best_first(service: Service, digits: Digits, classes: int, is_binary: bool) -> None:
    asked = {"classification": classes, "binary_data": is_binary}
    outputs = [{"name": "logits", "parameters": asked}]
    found = Response(post(service, body(tensor(digits.inputs[:ROWS]), outputs=outputs)))
    (output,) = found.root["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [ROWS, classes])
    expected = digits.logits[:ROWS]
    texts = read_elements(output["data"]) if is_binary else output["data"]
    read = [text.split(":") for text in texts]
    best = np.argsort(-expected, axis=1)[:, :classes]
    assert [int(index) for _, index, _ in read] == best.ravel().tolist()
    assert [label for _, _, label in read] == [str(index) for index in best.ravel()]
    assert all(len(value.partition(".")[2]) == 6 for value, _, _ in read)
    values = np.array([float(value) for value, _, _ in read]).reshape(ROWS, classes)
    np.testing.assert_allclose(values, np.take_along_axis(expected, best, 1), atol=1e-4)


def read_elements(content: bytes) -> list[str]:
    found = []
    while content:
        end = 4 + int.from_bytes(content[:4], "little")
        found.append(content[4:end].decode())
        content = content[end:]
    return found


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("rows", [1, 500])
def test_bodies_and_answers_may_be_compressed(
    service: Service, digits: Digits, coding: str, rows: int
) -> None:
    inputs = digits.inputs[:rows]
    content = inputs.tobytes()
    binary_output = {"binary_data_output": True}
    for (plain, headers), is_binary in (
        (body(tensor(inputs)), False),
        (body(binary(content, inputs.shape, "FP32"), tail=content, parameters=binary_output), True),
    ):
        headers |= {"Content-Encoding": coding, "Accept-Encoding": coding}
        answer = post(service, (PRESSES[coding](plain), headers))
        assert answer.headers.get("content-encoding", "identity") == coding
        found = Response(answer)  # httpx has inflated it; the header counts what was before
        assert_right(found.logits, digits.logits[:rows])
        assert found.is_binary == [is_binary]


def test_a_body_in_70_000_chunks_is_read(digits: Digits) -> None:
    inputs = digits.inputs[:300]
    content = inputs.tobytes()
    plain, headers = body(binary(content, inputs.shape, "FP32"), tail=content)
    assert len(plain) > 70_000

    def one_by_one() -> Any:
        return (plain[at : at + 1] for at in range(len(plain)))

    with Server.start(timeout_ms=3_600_000, body_timeout_s=3600) as patient:  # the client takes its time
        answer = patient.http.post(INFER, content=one_by_one(), headers=headers)
        assert_right(Response(answer).logits, digits.logits[:300])


def test_a_deadline_in_microseconds(service: Service, digits: Digits) -> None:
    given = tensor(digits.inputs[:1])
    Response(post(service, body(given, parameters={"timeout": 30_000_000})))
    Response(post(service, body(given, parameters={"timeout": 0})))
    late = post(service, body(given, parameters={"timeout": 1}))
    assert late.status_code == 504
    assert list(late.json()) == ["error"]


def test_the_protocol_and_the_native_route_answer_alike(service: Service, digits: Digits) -> None:
    found = Response(post(service, body(tensor(digits.pixels[:ROWS]))))
    np.testing.assert_array_equal(
        found.logits, service.logits(npy(digits.pixels[:ROWS]), "application/x-npy")
    )


def test_what_kind_a_body_is_need_not_be_said(service: Service, digits: Digits) -> None:
    content, _ = body(tensor(digits.inputs[:1]))
    for media_type in MEDIA_TYPES:
        headers = {"Content-Type": media_type} if media_type else {}
        assert_right(Response(post(service, (content, headers))).logits, digits.logits[:1])


def test_json_that_is_pretty_is_read_too(service: Service, digits: Digits) -> None:
    inputs = digits.inputs[:2]
    content = json.dumps({"inputs": [tensor(inputs, data=inputs.tolist())]}, indent=4).encode()
    assert_right(Response(post(service, (content, {}))).logits, digits.logits[:2])
