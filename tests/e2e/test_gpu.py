"""The end-to-end promises hold on CUDA too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from .digits import Digits, encoded, npy
from .server import NPY, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def cuda() -> Iterator[Server]:
    with Server.start(device="cuda:0") as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def test_models_says_that_the_device_is_cuda(cuda: Server) -> None:
    (model,) = cuda.get("/v1/models").json()["models"]
    assert model["device"].startswith("cuda:0")
    assert (model["fold"]["folded"], model["precision"]) == (5, "float32")
    assert model["fold"]["max_relative_error"] < 1e-5


def test_held_out_digits_are_recognised(cuda: Server, digits: Digits) -> None:
    answers = [cuda.predict(encoded(row)).json()["predictions"][0]["index"] for row in digits.pixels]
    assert np.mean(answers == digits.labels) >= 0.985
    assert np.array_equal(answers, digits.logits.argmax(axis=1))


def test_logits_are_those_of_the_unfolded_network(cuda: Server, digits: Digits) -> None:
    for rows in (1, 2, 63, 64, 65, 500):
        for sent in (digits.pixels[:rows], digits.inputs[:rows]):
            answers = cuda.logits(npy(sent), NPY)
            np.testing.assert_allclose(answers, digits.logits[:rows], rtol=TOLERANCE, atol=TOLERANCE)


def test_clients_at_once_each_get_their_own_rows(cuda: Server, digits: Digits) -> None:
    def ask(row: int) -> bool:
        answers = cuda.logits(npy(digits.pixels[row : row + 1 + row % 7]), NPY)
        expected = digits.logits[row : row + 1 + row % 7]
        return np.allclose(answers, expected, rtol=TOLERANCE, atol=TOLERANCE)

    with ThreadPoolExecutor(16) as clients:
        assert all(clients.map(ask, range(300)))
