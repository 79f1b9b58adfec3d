"""Clients that misbehave on their own connection disturb nobody and leave no trace but a count."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import Digits, assert_serves, encoded
from .server import Server, until
from .wire import chunk, head, is_closed, reply, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

BUGS = ("foldserve_requests_total", "digits", "internal-error")
PNG = encoded(np.zeros((1, 8, 8), np.uint8))
UNFINISHED = {
    "nothing": b"",
    "half a request line": b"POST /v1/mod",
    "half a head": head(f"Content-Length: {len(PNG)}")[:-2],
    "no body": head(f"Content-Length: {len(PNG)}"),
    "half a body": head(f"Content-Length: {len(PNG)}") + PNG[:20],
    "half a chunked body": head("Transfer-Encoding: chunked") + chunk(PNG[:20]),
    "half a chunk": head("Transfer-Encoding: chunked") + chunk(PNG)[:20],
    "half a form": head("Content-Length: 500").replace(b"image/png", b"multipart/form-data; boundary=x")
    + b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n',
}


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server whose log nobody else writes to."""
    with Server.start() as started:
        yield started


@pytest.mark.parametrize("goodbye", [socket.socket.close, reset])
@pytest.mark.parametrize("what", UNFINISHED)
def test_request_that_is_never_finished_holds_nobody_up_and_is_no_bug(
    own: Server, digits: Digits, what: str, goodbye: Callable[[socket.socket], None]
) -> None:
    bugs, written = own.metric(*BUGS), len(own.log)
    connection = own.connect()
    connection.sendall(UNFINISHED[what])
    assert_serves(own, digits)  # by now the server has read it
    goodbye(connection)
    assert_serves(own, digits)
    assert own.metric("foldserve_waiting_rows") == 0
    assert own.metric(*BUGS) == bugs
    assert "Traceback" not in own.log[written:]


def test_two_requests_in_one_packet_are_answered_in_order(own: Server, digits: Digits) -> None:
    images = [encoded(row) for row in digits.pixels[:2]]
    with own.connect() as connection:
        connection.sendall(b"".join(head(f"Content-Length: {len(image)}") + image for image in images))
        found = [reply(connection).body["predictions"][0]["index"] for _ in images]
    assert found == digits.logits[:2].argmax(axis=1).tolist()


def test_body_that_comes_byte_by_byte_is_answered(own: Server, digits: Digits) -> None:
    image = encoded(digits.pixels[0])
    with own.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head(f"Content-Length: {len(image)}") + image:
            connection.sendall(bytes([byte]))
        assert reply(connection).body["predictions"][0]["index"] == digits.logits[0].argmax()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        head("Content-Length: -1"),
        head("X" * 200_000),
    ],
    ids=["TLS", "HTTP of another version", "negative length", "endless header"],
)
def test_what_is_not_http_closes_only_its_own_connection(own: Server, digits: Digits, garbage: bytes) -> None:
    written = len(own.log)
    with own.connect() as connection:
        with contextlib.suppress(OSError):  # the server need not read to the end
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        while not is_closed(connection):
            pass
    assert_serves(own, digits)
    assert "Traceback" not in own.log[written:]


def test_head_that_says_its_length_twice_is_not_answered_twice(own: Server) -> None:
    smuggled = head("Content-Length: 0", f"Content-Length: {len(PNG)}", "Transfer-Encoding: chunked")
    with own.connect() as connection:
        connection.sendall(smuggled + PNG)
        assert reply(connection).status == 400
        assert is_closed(connection)


def test_many_idle_connections_leave_room_for_work(own: Server, digits: Digits) -> None:
    idle = [own.connect() for _ in range(200)]
    try:
        for connection in idle:
            connection.sendall(UNFINISHED["half a body"])
        assert_serves(own, digits)
    finally:
        for connection in idle:
            connection.close()
    until(lambda: own.get("/livez").status_code == 200)
