"""Clients that are slow or silent are closed in time, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import OCTETS, Digits, assert_serves, encoded
from .problems import assert_problem
from .server import PATIENCE, Server, until
from .tree import Tree
from .wire import PREDICT, chunk, head, is_closed, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

TIMEOUTS = {"header_timeout_s": 1, "body_timeout_s": 1, "idle_timeout_s": 2}
PNG = encoded(np.zeros((1, 8, 8), np.uint8))
LATE = ("foldserve_requests_total", "digits", "request-timeout")
TOO_LATE = (408, "request-timeout", "slow|not complete")


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that does not wait for long, and takes large requests."""
    with Server.start(**TIMEOUTS, max_request_rows=100_000, max_waiting_rows=100_000) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def assert_told(connection: socket.socket, expected: tuple[int, str, str]) -> None:
    """The next answer is this problem, and the last of its connection."""
    answer = reply(connection)
    assert_problem(answer.status, answer.headers, answer.body, expected=expected)
    assert answer.headers["connection"] == "close"
    assert is_closed(connection)


def test_half_open_connections_are_closed_while_good_requests_are_answered(
    strict: Server, digits: Digits
) -> None:
    late = strict.metric(*LATE)
    halves = [b"", b"POST /v1/mod", head("Content-Length: 100")[:-2], head("Content-Length: 100") + b"half"]
    began = time.monotonic()
    clients: list[tuple[bytes, socket.socket]] = []
    for half in halves * 50:
        clients.append((half, strict.connect()))
        clients[-1][1].sendall(half)  # at once: its time runs from the connection on
    answered = 0
    while time.monotonic() - began < 2 * TIMEOUTS["header_timeout_s"]:
        assert_serves(strict, digits)
        answered += 1
    assert answered > 0
    for half, connection in clients:
        with connection:
            if half:
                assert_told(connection, TOO_LATE)
            else:
                assert is_closed(connection)
    assert strict.metric(*LATE) == late + 50  # those whose request was known to be one to predict


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (head("Content-Length: 100")[:-2] + b"X-Slow: ", b"x"),
        (head("Content-Length: 100000"), b"x"),
        (head("Transfer-Encoding: chunked"), chunk(b"x")),
    ],
    ids=["headers", "body", "chunks"],
)
def test_client_that_drips_is_told_that_it_is_too_slow(strict: Server, start: bytes, piece: bytes) -> None:
    with strict.connect() as connection:
        connection.sendall(start)
        connection.setblocking(False)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                connection.send(piece)
                continue
            break
        connection.settimeout(PATIENCE)
        answer = reply(connection)
        assert_problem(answer.status, answer.headers, answer.body, expected=TOO_LATE)


def test_slow_but_honest_upload_is_answered(strict: Server, digits: Digits) -> None:
    rows = np.tile(digits.pixels[:64], (100, 1, 1, 1))
    body = rows.astype(np.uint8).tobytes()
    address = f"{PREDICT}?dtype=uint8"
    with strict.connect() as connection:
        start = head(f"Content-Length: {len(body)}", address=address).replace(b"image/png", OCTETS.encode())
        connection.sendall(start)
        began, pieces = time.monotonic(), 10
        for at in range(0, len(body), len(body) // pieces):
            connection.sendall(body[at : at + len(body) // pieces])  # earns more time than it takes
            time.sleep(0.2)
        assert time.monotonic() - began > 1.5 * TIMEOUTS["body_timeout_s"]
        found = [row["index"] for row in reply(connection).body["predictions"]]
    assert found == digits.logits[:64].argmax(axis=1).tolist() * 100


def test_idle_connection_is_closed_and_a_further_request_has_its_own_time(strict: Server) -> None:
    whole = head(f"Content-Length: {len(PNG)}") + PNG
    with strict.connect() as idle, strict.connect() as half:
        for connection in (idle, half):
            connection.sendall(whole)
            assert reply(connection).status == 200
        half.sendall(whole[:20])
        assert_told(half, TOO_LATE)
        assert is_closed(idle)


def test_answer_that_nobody_reads_is_given_up(strict: Server, digits: Digits) -> None:
    """Its client keeps the connection open and sends what it likes, but takes nothing."""
    pixels = bytes(64 * 5000)
    start = head(f"Content-Length: {len(pixels)}", address=f"{PREDICT}?dtype=uint8&output=logits")
    request = start.replace(b"image/png", OCTETS.encode()) + pixels
    with strict.connect() as connection:
        connection.setblocking(False)

        def is_cut() -> bool:
            try:
                connection.send(request)  # some of it; that it stops being HTTP is never noticed
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        connection.settimeout(PATIENCE)
        for _ in range(4):
            connection.sendall(request)
        connection.setblocking(False)
        until(is_cut)
    assert_serves(strict, digits)


def test_requests_in_one_packet_are_answered_though_the_last_one_stops(strict: Server) -> None:
    whole = head(f"Content-Length: {len(PNG)}") + PNG
    with strict.connect() as connection:
        connection.sendall(whole + whole + whole[:-1])
        assert [reply(connection).status for _ in range(2)] == [200, 200]
        assert_told(connection, TOO_LATE)


def test_client_that_asks_first_is_told_to_continue_and_then_has_its_time(strict: Server) -> None:
    for rest, status in ((PNG, 200), (b"", 408)):
        with strict.connect() as connection:
            connection.sendall(head(f"Content-Length: {len(PNG)}", "Expect: 100-continue"))
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(rest)
            assert reply(connection).status == status


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", (400, "invalid-http", "HTTP/1.1")),
        (head("Transfer-Encoding: chunked") + b"not a length\r\n", (400, "invalid-http", "HTTP/1.1")),
        (head()[:-2] + b"X" * 600_000, (431, "headers-too-large", "65536 bytes")),
    ],
    ids=["TLS", "chunk", "endless header"],
)
def test_what_is_not_http_is_refused_as_a_problem(
    strict: Server, sent: bytes, expected: tuple[int, str, str]
) -> None:
    with strict.connect() as connection:
        with contextlib.suppress(ConnectionError):  # the server need not read to the end
            connection.sendall(sent)
        answer = reply(connection)
        assert_problem(answer.status, answer.headers, answer.body, expected=expected)


def test_bytes_that_came_while_the_service_was_held_up_came_in_time(strict: Server) -> None:
    whole = head(f"Content-Length: {len(PNG)}") + PNG
    cuts: dict[int, socket.socket] = {cut: strict.connect() for cut in (20, len(whole) - 1)}
    for cut, connection in cuts.items():
        connection.sendall(whole[:cut])
    assert strict.get("/livez").status_code == 200
    tree = Tree(strict.process.pid)
    tree.signal(signal.SIGSTOP)
    for cut, connection in cuts.items():
        connection.sendall(whole[cut:])
    time.sleep(2 * TIMEOUTS["header_timeout_s"])
    tree.signal(signal.SIGCONT)
    for connection in cuts.values():
        with connection:
            assert reply(connection).status == 200
