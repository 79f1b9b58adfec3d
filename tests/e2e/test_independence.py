"""Requests leave the model as it was, and one another alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .digits import JSON, MULTIPART, OCTETS, Digits, as_json, encoded, multipart, npy
from .server import NPY, Server
from .stores import copied, with_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from .server import Service

pytestmark = pytest.mark.e2e

CLIENTS = 10  # of at most 200 rows each, which is within the queue's 2,048
TOLERANCE = 1e-5
STATISTICS = ("running_mean", "running_var", "weight", "bias")


@pytest.fixture(scope="module")
def gathering() -> Iterator[Server]:
    """A server in which rows wait for company, so that requests do share batches."""
    with Server.start(max_delay_ms=50) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def every_layer(service: Service) -> dict[str, dict[str, Any]]:
    listed = service.get("/v1/models/digits/layers").json()["layers"]
    names = [layer["name"] for layer in listed]
    return {name: service.get(f"/v1/models/digits/layers/{name}").json() for name in names}


def request_of(digits: Digits, rows: np.ndarray, form: int) -> tuple[bytes, str, dict[str, str]]:
    """The rows in one of five forms; the last sends one image only."""
    forms: list[tuple[bytes, str, dict[str, str]]] = [
        (npy(digits.pixels[rows]), NPY, {}),
        (digits.inputs[rows].tobytes(), OCTETS, {}),
        (as_json(digits.pixels[rows].tolist()), JSON, {"dtype": "uint8"}),
        (multipart([encoded(row) for row in digits.pixels[rows]]), MULTIPART, {}),
        (encoded(digits.pixels[rows[0]]), "image/png", {}),
    ]
    return forms[form]


def test_statistics_are_bit_identical_after_a_thousand_requests(service: Service, digits: Digits) -> None:
    before = every_layer(service)
    bodies = [npy(digits.pixels[row : row + 3]) for row in range(100)]
    with ThreadPoolExecutor(8) as clients:
        statuses = list(clients.map(lambda n: service.predict(bodies[n % 100], NPY).status_code, range(1000)))
    assert statuses == [200] * 1000
    after = every_layer(service)
    assert after == before
    assert len(after) == 5
    for name, layer in after.items():
        for statistic in STATISTICS:
            stored = digits.tensors[f"{name}.{statistic}"].numpy()
            assert np.array(layer["vectors"][statistic], np.float32).tobytes() == stored.tobytes()
        assert layer["num_batches_tracked"] == int(digits.tensors[f"{name}.num_batches_tracked"])


def test_answer_is_the_same_alone_and_among_any_neighbours(gathering: Server, digits: Digits) -> None:
    alone = gathering.logits(npy(digits.pixels[0]), NPY)
    extreme = np.full((3, 1, 8, 8), 1e4, np.float32)
    neighbours = [
        (npy(digits.pixels[1:30]), NPY),
        (npy(digits.inputs[30:33]), NPY),
        (npy(extreme), NPY),
        (npy(-extreme), NPY),
        (npy(np.zeros((7, 1, 8, 8), np.uint8)), NPY),
    ]
    subjects = [(npy(digits.pixels[:1]), NPY), (npy(digits.inputs[:1]), NPY)]
    batches_before = gathering.metric("foldserve_batch_rows_count", "digits", "1")
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda request: gathering.logits(*request), (subjects + neighbours) * 8))
    batches = gathering.metric("foldserve_batch_rows_count", "digits", "1") - batches_before
    assert batches < len(answers), "no request had a neighbour"
    for number in range(0, len(answers), len(subjects + neighbours)):
        for answer in answers[number : number + len(subjects)]:
            np.testing.assert_allclose(answer, alone, rtol=TOLERANCE, atol=TOLERANCE)


def test_overflowing_neighbour_fails_alone(tmp_path: Path, digits: Digits) -> None:
    """Its inputs are such that nobody can say before the network has computed them."""

    def scale(tensors: dict[str, Tensor]) -> None:
        tensors["fc2.weight"] *= 1e30
        tensors["fc2.bias"] *= 1e30

    with_tensors(copied(tmp_path), scale)
    overflowing, good = npy(np.full((1, 1, 8, 8), 9e8, np.float32)), npy(digits.inputs[:2])
    with (
        Server.start(model_store=tmp_path, max_delay_ms=50) as server,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        answers = list(clients.map(lambda body: server.predict(body, NPY), [good, overflowing] * 16))
    assert [answer.status_code for answer in answers] == [200, 400] * 16
    assert {answer.json()["detail"] for answer in answers[1::2]} == {
        "row 0: the network's answer is not finite; its inputs are out of range"
    }
    for answer in answers[::2]:
        found = [prediction["index"] for prediction in answer.json()["predictions"]]
        assert found == digits.logits[:2].argmax(axis=1).tolist()


@pytest.mark.parametrize("which", ["service", "gathering"])
def test_many_clients_of_mixed_sizes_each_get_their_own_rows(
    which: str, digits: Digits, request: pytest.FixtureRequest
) -> None:
    service: Service = request.getfixturevalue(which)
    choose = np.random.default_rng(0)
    sizes = choose.choice([1, 1, 1, 2, 3, 7, 31, 64, 65, 200], 320)
    rows = [choose.integers(0, len(digits.pixels), size) for size in sizes]

    def ask(number: int) -> bool:
        asked, form = rows[number], number % 5
        asked = asked[:1] if form == 4 else asked
        body, media_type, query = request_of(digits, asked, form)
        answers = service.logits(body, media_type, **query)
        return np.allclose(answers, digits.logits[asked], rtol=TOLERANCE, atol=TOLERANCE)

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert all(clients.map(ask, range(len(rows))))
