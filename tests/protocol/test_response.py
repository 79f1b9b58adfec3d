"""Responses: JSON, binary and some of each, as a client reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.protocol.response import OutputTensor, classified, write_response

LOGITS = np.array([[0.1, 2.5, -1.0], [7.0, 7.0, 1 / 3]], np.float32)


def test_numbers_are_flat_and_come_back_exactly() -> None:
    content, document_bytes = write_response("m", 3, None, [OutputTensor("y", (2, 3), LOGITS, False)])
    assert document_bytes is None
    root = json.loads(content)
    assert list(root) == ["model_name", "model_version", "outputs"]
    (output,) = root["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 3])
    assert np.array(output["data"], np.float32).reshape(2, 3).tobytes() == LOGITS.tobytes()
    assert "parameters" not in output


def test_binary_outputs_follow_in_order_beside_those_in_json() -> None:
    outputs = [
        OutputTensor("a", (2, 3), LOGITS, True),
        OutputTensor("b", (2, 3), LOGITS, False),
        OutputTensor("c", (2,), ["é", ""], True),
    ]
    content, document_bytes = write_response("m", 3, "id ü", outputs)
    root = json.loads(content[:document_bytes])
    assert root["id"] == "id ü"
    assert [output.get("parameters") for output in root["outputs"]] == [
        {"binary_data_size": 24},
        None,
        {"binary_data_size": 10},
    ]
    assert ["data" in output for output in root["outputs"]] == [False, True, False]
    assert content[document_bytes:] == LOGITS.astype("<f4").tobytes() + b"\2\0\0\0\xc3\xa9\0\0\0\0"


def test_classes_are_written_with_six_decimals_in_the_order_given() -> None:
    best = np.array([[1, 0], [0, 1]])
    assert classified(LOGITS, best, None) == ["2.500000:1", "0.100000:0", "7.000000:0", "7.000000:1"]
    assert classified(LOGITS[:1], np.array([[1, 0, 2]]), ["cat", "dog", "a:b"]) == [
        "2.500000:1:dog",
        "0.100000:0:cat",
        "-1.000000:2:a:b",
    ]


@pytest.mark.parametrize("array", [LOGITS, LOGITS.T, LOGITS[:, ::2], LOGITS.astype(">f4"), LOGITS[:, :0]])
def test_a_binary_output_lies_in_memory_as_it_is_sent(array: np.ndarray) -> None:
    output = OutputTensor("y", array.shape, array, True)
    assert bytes(output.as_bytes()) == array.astype("<f4").tobytes()


def test_a_binary_output_is_copied_only_into_the_answer() -> None:
    output = OutputTensor("y", LOGITS.shape, LOGITS, True)
    assert np.shares_memory(np.frombuffer(output.as_bytes(), np.float32), LOGITS)
