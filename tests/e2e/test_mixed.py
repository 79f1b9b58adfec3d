"""Good requests among bad ones: each gets its own answer, and exactly one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import JSON, MULTIPART, OCTETS, Digits, as_json, b64_json, encoded, multipart, npy
from .load import Ask, Load, Outcome, rows
from .server import NPY, Server, until
from .stores import copied, with_tensors
from .watching import is_well, scrape
from .wire import PREDICT, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

pytestmark = pytest.mark.e2e

REQUESTS = int(os.environ.get("FOLDSERVE_TEST_REQUESTS", "10000"))
BATCH = 13
ROUNDS = 40


def ask(
    content: bytes,
    media_type: str,
    *,
    status: int = 200,
    indices: tuple[int, ...] = (),
    address: str = PREDICT,
) -> Ask:
    start = head(f"Content-Length: {len(content)}", address=address)
    return Ask(start.replace(b"image/png", media_type.encode()) + content, indices, status)


def good(digits: Digits, at: int) -> list[Ask]:
    """The same rows in every form."""
    count = 1 + at % 5
    pixels = digits.pixels[at : at + count]
    indices = tuple(digits.logits[at : at + count].argmax(axis=1).tolist())
    images = [encoded(row) for row in pixels]
    return [
        rows(digits, at, count),
        ask(npy(pixels), NPY, indices=indices),
        ask(npy(digits.inputs[at : at + count]), NPY, indices=indices),
        ask(as_json(pixels.tolist()), JSON, indices=indices, address=f"{PREDICT}?dtype=uint8"),
        ask(b64_json(images), JSON, indices=indices),
        ask(multipart(images), MULTIPART, indices=indices),
        ask(images[0], "image/png", indices=indices[:1]),
    ]


def bad(digits: Digits) -> list[Ask]:
    """A body, an address or a header that cannot be answered, of every kind."""
    row, image = digits.inputs[:1], encoded(digits.pixels[0])
    chunked = head("Transfer-Encoding: chunked") + chunk(image[:30]) + b"0\r\n\r\n"
    return [
        ask(npy(np.full_like(row, np.nan)), NPY, status=400),
        ask(npy(row)[:-1], NPY, status=400),
        ask(npy(row[:, :, :7]), NPY, status=400),
        ask(image[:-20], "image/png", status=400),
        ask(b"", "image/png", status=400),
        ask(bytes(63), OCTETS, status=400, address=f"{PREDICT}?dtype=uint8"),
        ask(b'{"inputs": [[', JSON, status=400),
        ask(b64_json([image[:40]]), JSON, status=400),
        ask(multipart([image, image[:40]]), MULTIPART, status=400),
        ask(bytes(64 * 600), OCTETS, status=413, address=f"{PREDICT}?dtype=uint8"),
        ask(image, "image/gif", status=415),
        ask(image, "image/png", status=404, address="/v1/models/nobody/predict"),
        ask(image, "image/png", status=404, address="/v1/models/digits/versions/7/predict"),
        ask(image, "image/png", status=400, address=f"{PREDICT}?top_k=0"),
        Ask(chunked, (), 400),
    ]


def run(*loads: Load) -> list[Outcome]:
    """What becomes of loads that run at the same time, on a thread each, to their end."""
    for load in loads:
        load.start()
    for load in loads:
        load.join()
    return [outcome for load in loads for outcome in load.outcomes]


@pytest.fixture(scope="module")
def pair() -> Iterator[Server]:
    with Server.start(workers=2, max_request_rows=512) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def test_as_many_answers_as_requests_and_each_the_right_one(pair: Server, digits: Digits) -> None:
    """10,000 of them, or `FOLDSERVE_TEST_REQUESTS`, from two threads over keep-alive connections."""
    wrong = bad(digits)
    asks = [
        each
        for at in range(100)
        for number, right in enumerate(good(digits, at))
        for each in (right, wrong[(7 * at + number) % len(wrong)])[: 2 - number % 2]
    ]
    outcomes = run(*(Load(pair.address, turned, 16, most=REQUESTS // 2) for turned in (asks, asks[::-1])))
    assert len(outcomes) == REQUESTS // 2 * 2
    assert [outcome for outcome in outcomes if not outcome.is_right] == []
    assert {outcome.status for outcome in outcomes} == {200, 400, 404, 413, 415}
    now = scrape(pair)
    counted = {name[2]: value for name, value in now.items() if name[0] == "foldserve_requests_total"}
    assert sum(value for name, value in now.items() if name[0] == "foldserve_requests_total") == len(outcomes)
    assert counted["ok"] == sum(outcome.status == 200 for outcome in outcomes)
    until(lambda: is_well(pair))


def test_bad_rows_in_a_batch_take_no_good_ones_with_them(tmp_path: Path, digits: Digits) -> None:
    """12 good requests and one whose answer is not finite make one batch, beside bad bodies of every kind."""

    def shout(tensors: dict[str, Tensor]) -> None:
        tensors["fc2.weight"] *= 1e35
        tensors["fc2.bias"] *= 1e35

    with_tensors(copied(tmp_path), shout)
    inputs = [
        ask(npy(digits.inputs[at : at + 1]), NPY, indices=(int(digits.logits[at].argmax()),))
        for at in range(BATCH * ROUNDS)
    ]
    poison, others = ask(npy(np.full((1, 1, 8, 8), 9e8, np.float32)), NPY, status=400), bad(digits)
    settings = {"max_batch": BATCH, "max_delay_ms": 10_000, "timeout_ms": 3_600_000}
    with Server.start(workers=2, model_store=tmp_path, **settings) as server:
        for number in range(ROUNDS):
            batch = inputs[number * BATCH : (number + 1) * BATCH]
            batch[number % BATCH] = poison
            beside = Load(server.address, others, 5, most=15)
            outcomes = run(Load(server.address, batch, BATCH, most=BATCH), beside)
            assert len(outcomes) == BATCH + 15
            assert [outcome for outcome in outcomes if not outcome.is_right] == []
            assert sum(b"not finite" in outcome.body for outcome in outcomes) == 1
        now = scrape(server)
        assert now["foldserve_batch_rows_count", "digits", "1"] == ROUNDS
        assert now["foldserve_rows_total", "digits", "1"] == ROUNDS * BATCH
        until(lambda: is_well(server))
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log
