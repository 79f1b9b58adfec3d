"""From the first signal of life to the last: starting, overload, cancellation, and the drain."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from .digits import MULTIPART, SLOW_SETTINGS, Digits, encoded, npy, slow_form
from .problems import assert_problem
from .server import NPY, Process, Server, Service, free_port, until
from .tree import Tree
from .wire import head, is_closed, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

LONG = 10_000  # milliseconds that rows wait for company; the most that may be set
WAITING = "foldserve_waiting_rows"
REQUESTS = "foldserve_requests_total"


@contextmanager
def held(server: Server, digits: Digits, *sizes: int) -> Iterator[list[Future[httpx.Response]]]:
    """Requests of these sizes that were accepted and wait in the queue."""
    with ThreadPoolExecutor(len(sizes)) as clients:
        bodies = [npy(digits.pixels[:rows]) for rows in sizes]
        asked = [clients.submit(server.predict, body, NPY, top_k=1) for body in bodies]
        until(lambda: server.metric(WAITING) == sum(sizes))
        yield asked


def assert_all_right(answers: list[Future[httpx.Response]], digits: Digits) -> None:
    for answer in answers:
        assert answer.result().status_code == 200, answer.result().text
        found = [prediction["index"] for prediction in answer.result().json()["predictions"]]
        assert found == digits.logits[: len(found)].argmax(axis=1).tolist()


# --- the start


def test_while_models_load_the_service_is_live_and_not_ready() -> None:
    port = free_port()
    with Process("serve", port=port) as process:
        Tree(process.pid).stall_engine()
        with closing(Service(f"http://127.0.0.1:{port}")) as loading:
            until(lambda: process.has_ended or is_live(loading))
            answers = [loading.get("/readyz"), loading.predict(b"x"), loading.get("/v1/models/digits")]
            state = loading.get("/v1/models").json()
            ready = loading.metric("foldserve_ready")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.log
        assert "Traceback" not in process.log
    for answer in answers:
        expected = (503, "not-ready", "load|start")
        assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)
        assert int(answer.headers["retry-after"]) >= 1
    assert (state["state"], ready) == ("starting", 0)


def is_live(service: Service) -> bool:
    try:
        return service.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_anything_listens_ends_the_process_in_order(number: int) -> None:
    """As the first process of a container it would not even get the default action of a signal."""
    with Process("serve", port=0) as process:
        process.wait_for("loading models")
        process.signal(number)
        assert process.wait() == 0, process.log
        assert "Traceback" not in process.log


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_everything_accepted_be_answered(digits: Digits, number: int) -> None:
    image = encoded(digits.pixels[0])
    with (
        Server.start(max_delay_ms=LONG, max_batch=16) as server,
        server.connect() as idle,
        server.connect() as half,
        server.connect() as upload,
    ):
        half.sendall(head("Content-Length: 100")[:-2])
        upload.sendall(head(f"Content-Length: {len(image)}") + image[:20])
        with held(server, digits, 1, 2, 3, 4, 5) as asked:
            server.process.signal(number)
            until(server.refuses)
            assert_all_right(asked, digits)
            for answer in asked:  # nobody is to come: they need not wait for company
                assert answer.result().json()["timing_ms"]["queue"] < LONG
        upload.sendall(image[20:])
        assert reply(upload).body["predictions"][0]["index"] == digits.logits[0].argmax()
        assert server.process.wait() == 0, server.log
        assert is_closed(idle)
        assert is_closed(half)
        assert "Traceback" not in server.log


def test_drain_does_not_wait_for_ever(digits: Digits) -> None:
    with Server.start(max_delay_ms=LONG, drain_timeout_s=1) as server, server.connect() as upload:
        upload.sendall(head("Content-Length: 100") + b"half")
        assert server.get("/livez").status_code == 200
        server.stop()
        answered = upload.recv(1 << 16)
        assert not answered or answered.startswith(b"HTTP/1.1 503"), answered
        assert "Traceback" not in server.log


def test_images_that_take_longer_than_the_drain_are_given_up_and_told() -> None:
    body = slow_form()
    with Server.start(workers=1, drain_timeout_s=1, **SLOW_SETTINGS) as server:
        clients = [server.connect() for _ in range(12)]  # of few cores' decoders, some have to wait
        for client in clients:
            start = head(f"Content-Length: {len(body)}").replace(b"image/png", MULTIPART.encode())
            client.sendall(start + body)
        until(lambda: server.metric("foldserve_slots_in_use") > 0)
        assert server.stop() == 0, server.log
        answers = []
        for client in clients:
            with client:
                answers.append(reply(client))
        assert {(answer.status, answer.body["type"]) for answer in answers} == {(503, "draining")}
        assert "Traceback" not in server.log


# --- overload, deadlines, cancellation


@pytest.fixture(scope="module")
def holding() -> Iterator[Server]:
    """A server whose queue holds 8 rows, for as long as a test may want."""
    with Server.start(max_delay_ms=LONG, max_waiting_rows=8) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


@contextmanager
def abandoned(server: Server, rows: int) -> Iterator[None]:
    """A request that waits in the queue until the block ends, when its client goes away."""
    before = server.metric(WAITING)
    cancelled = server.metric(REQUESTS, "digits", "cancelled")
    with server.connect() as connection:
        connection.sendall(
            head(f"Content-Length: {64 * rows}", address="/v1/models/digits/predict?dtype=uint8").replace(
                b"image/png", b"application/octet-stream"
            )
            + bytes(64 * rows)
        )
        until(lambda: server.metric(WAITING) == before + rows)
        yield
    until(lambda: server.metric(REQUESTS, "digits", "cancelled") == cancelled + 1)


def test_full_queue_refuses_at_once_and_says_when_to_come_again(holding: Server, digits: Digits) -> None:
    with abandoned(holding, 6):
        answer = holding.predict(npy(digits.pixels[:3]), NPY)
        expected = (429, "queue-full", "6 rows wait already; the queue holds 8")
        assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)
        assert int(answer.headers["retry-after"]) >= 1
        assert holding.metric(WAITING) == 6
        assert holding.get("/readyz").status_code == 200


def test_request_larger_than_the_queue_is_too_large_not_too_early(holding: Server, digits: Digits) -> None:
    answer = holding.predict(npy(digits.pixels[:9]), NPY)
    expected = (413, "too-large", "9 rows; the queue holds 8")
    assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)


def test_client_that_goes_away_takes_its_rows_with_it(digits: Digits) -> None:
    with Server.start(max_delay_ms=LONG, max_waiting_rows=8) as server:
        with abandoned(server, 8):
            assert server.predict(npy(digits.pixels[:8]), NPY).status_code == 429
        answer = server.predict(npy(digits.pixels[:8]), NPY, timeout_ms=10_000)
        assert answer.status_code == 200, "rows of nobody fill the queue"
        assert server.metric("foldserve_rows_total", "digits", "1") == 8


@pytest.mark.parametrize(("asked_ms", "served_ms"), [(20, 30_000), (3_600_000, 20)])
def test_deadline_of_request_or_service_that_passes_during_the_upload_is_told(
    digits: Digits, asked_ms: int, served_ms: int
) -> None:
    image = encoded(digits.pixels[0])
    with Server.start(timeout_ms=served_ms) as server, server.connect() as connection:
        address = f"/v1/models/digits/predict?timeout_ms={asked_ms}"
        connection.sendall(head(f"Content-Length: {len(image)}", address=address) + image[:20])
        time.sleep(0.1)  # the deadline, and more
        connection.sendall(image[20:])
        answer = reply(connection)
        assert (answer.status, answer.body["type"]) == (504, "deadline-passed")
        assert server.metric(REQUESTS, "digits", "deadline-passed") == 1
