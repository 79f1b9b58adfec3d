"""Outputs that are no classification, or have no labels, over the Open Inference Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .infer import Response, body, post, tensor
from .server import Server
from .stores import copied, with_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .digits import Digits

pytestmark = pytest.mark.e2e


def with_output(output: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(outputs=[output])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped network as `plain`, whose output is a tensor, and as `unlabelled`."""
    folder = tmp_path_factory.mktemp("store")
    for name, task in (("plain", "tensor"), ("unlabelled", "classification")):
        with_manifest(copied(folder, name), with_output({"name": "logits", "task": task}))
    with Server.start(model_store=folder) as started:
        yield started
        assert started.stop() == 0, started.log


def asked(server: Server, digits: Digits, model: str, classes: int) -> tuple[int, dict[str, Any]]:
    outputs = [{"name": "logits", "parameters": {"classification": classes}}]
    answer = post(server, body(tensor(digits.inputs[:2]), outputs=outputs), f"/v2/models/{model}/infer")
    return answer.status_code, answer.json()


def test_a_tensor_is_answered_as_one_and_not_classified(server: Server, digits: Digits) -> None:
    answer = post(server, body(tensor(digits.inputs[:2])), "/v2/models/plain/infer")
    np.testing.assert_allclose(Response(answer).logits, digits.logits[:2], rtol=1e-5, atol=1e-5)
    assert asked(server, digits, "plain", 1) == (
        400,
        {"error": "output 'logits' is a tensor and cannot be classified"},
    )


def test_classes_without_labels_are_value_and_index(server: Server, digits: Digits) -> None:
    status, found = asked(server, digits, "unlabelled", 1)
    assert status == 200
    texts = found["outputs"][0]["data"]
    assert [text.count(":") for text in texts] == [1, 1]
    assert [int(text.split(":")[1]) for text in texts] == digits.logits[:2].argmax(axis=1).tolist()
