"""Limits on bytes and pixels hold whatever the headers say."""

from __future__ import annotations

import contextlib
import select
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import JSON, MULTIPART, OCTETS, b64_json, encoded, multipart
from .problems import assert_problem
from .server import PATIENCE, Server
from .tree import Tree
from .wire import chunk, head, is_closed, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

MAX_BYTES = 64 * 1024
MAX_PIXELS = 400
TOO_LARGE = (413, "too-large", f"the body is larger than {MAX_BYTES} bytes")
PNG = encoded(np.zeros((1, 8, 8), np.uint8))


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server with low limits."""
    with Server.start(max_body_mb=MAX_BYTES / 2**20, max_pixels=MAX_PIXELS, max_request_rows=2000) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


@pytest.mark.parametrize(
    ("rows", "status"), [(MAX_BYTES // 64, 200), (MAX_BYTES // 64 + 1, 413)], ids=["at limit", "above"]
)
def test_limit_is_exact(small: Server, rows: int, status: int) -> None:
    answer = small.predict(bytes(64 * rows), OCTETS, dtype="uint8")
    assert answer.status_code == status
    if status == 413:
        assert_problem(413, answer.headers, answer.json(), expected=TOO_LARGE)


def test_announced_body_is_refused_before_it_is_sent(small: Server) -> None:
    with small.connect() as connection:
        connection.sendall(head(f"Content-Length: {MAX_BYTES + 1}"))
        answer = reply(connection)
        assert_problem(answer.status, answer.headers, answer.body, expected=TOO_LARGE)
        assert is_closed(connection)


def test_announced_body_is_refused_while_it_is_sent(small: Server) -> None:
    body = bytes(64 * MAX_BYTES)
    with small.connect() as connection:
        connection.sendall(head(f"Content-Length: {len(body)}"))
        with contextlib.suppress(ConnectionError):  # the server need not read to the end
            connection.sendall(body)
        answer = reply(connection)
        assert_problem(answer.status, answer.headers, answer.body, expected=TOO_LARGE)


@pytest.mark.parametrize("media_type", ["image/png", OCTETS, JSON, MULTIPART])
def test_chunked_body_is_refused_at_the_first_byte_too_many(small: Server, media_type: str) -> None:
    with small.connect() as connection:
        connection.sendall(
            head("Transfer-Encoding: chunked").replace(b"image/png", media_type.encode())
            + chunk(multipart([bytes(MAX_BYTES)]))
        )
        answer = reply(connection)  # though the body has no end yet
        assert_problem(answer.status, answer.headers, answer.body, expected=TOO_LARGE)


def test_connection_survives_a_refused_chunked_body_or_is_closed(small: Server) -> None:
    with small.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(bytes(MAX_BYTES + 1)))
        first = reply(connection)
        assert first.status == 413
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"0\r\n\r\n" + head(f"Content-Length: {len(PNG)}") + PNG)
        if first.headers.get("connection") == "close":
            assert is_closed(connection)
        else:
            assert reply(connection).status == 200


def test_chunked_body_within_the_limit_is_answered(small: Server) -> None:
    pieces = b"".join(chunk(PNG[at : at + 7]) for at in range(0, len(PNG), 7))
    with small.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + pieces + b"0\r\n\r\n")
        assert reply(connection).status == 200


def test_client_that_asks_first_is_told_to_continue_or_not(small: Server) -> None:
    with small.connect() as connection:
        connection.sendall(head(f"Content-Length: {MAX_BYTES + 1}", "Expect: 100-continue"))
        assert connection.recv(12, 0) == b"HTTP/1.1 413"
    with small.connect() as connection:
        connection.sendall(head(f"Content-Length: {len(PNG)}", "Expect: 100-continue"))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(PNG)
        assert reply(connection).status == 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_image_is_refused_by_its_pixels(small: Server, kind: str) -> None:
    def image(width: int) -> bytes:
        return encoded(np.zeros((1, 20, width), np.uint8), kind)

    detail = "the image is 21x20 pixels, over the limit of 400 pixels"
    assert small.predict(image(20)).status_code == 200
    for answer, where in (
        (small.predict(image(21)), "^"),
        (small.predict(multipart([image(20), image(21)]), MULTIPART), "image 1: "),
        (small.predict(b64_json([image(20), image(21)]), JSON), r"inputs\[1\].b64: "),
    ):
        expected = (413, "too-large", where + detail)
        assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)


def test_image_is_refused_before_it_is_decoded(small: Server) -> None:
    header = PNG[:16] + (100_000).to_bytes(4, "big") * 2 + PNG[24:]
    answer = small.predict(with_right_checksum(header))
    expected = (413, "too-large", "^the image is 100000x100000 pixels")
    assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)


@pytest.mark.parametrize("start", ["Content-Length: 268435456", "Transfer-Encoding: chunked"])
def test_huge_body_is_refused_and_takes_no_memory_in_any_process(small: Server, start: str) -> None:
    """256 MiB, as far as the service reads on."""
    piece, pieces = bytes(1 << 20), 256
    sent = piece if "Length" in start else chunk(piece)
    tree = Tree(small.process.pid)
    before = tree.resident_bytes()
    tree.forget_peaks()
    with small.connect() as connection:
        connection.sendall(head(start))
        with contextlib.suppress(ConnectionError):
            for _ in range(pieces):
                connection.sendall(sent)
        answer = reply(connection)
    assert_problem(answer.status, answer.headers, answer.body, expected=TOO_LARGE)
    peaks = tree.peak_bytes()
    assert set(peaks) == set(before)
    grown = {pid: peaks[pid] - before[pid] for pid in before}
    assert max(grown.values()) < 10e6, grown


def test_bodies_that_come_at_the_same_time_have_a_limit_together() -> None:
    half = bytes(600 * 1024)
    with Server.start(workers=1, arena_mb=1, max_body_mb=0.7) as server:
        clients = {server.connect(), server.connect()}
        for client in clients:
            with contextlib.suppress(ConnectionError):  # the server need not read to the end
                client.sendall(head(f"Content-Length: {len(half) + len(PNG)}") + half)
        (refused,), _, _ = select.select(list(clients), [], [], PATIENCE)
        (other,) = clients - {refused}
        with refused, other:
            answer = reply(refused)
            expected = (429, "queue-full", "^other bodies take all the room")
            assert_problem(answer.status, answer.headers, answer.body, expected=expected)
            assert answer.headers["connection"] == "close"
            other.sendall(PNG)
            assert reply(other).status == 400  # it is no image
        assert server.predict(PNG).status_code == 200


def test_answer_that_would_be_too_long_in_json_is_refused_or_given_as_an_array() -> None:
    rows = bytes(64 * 7000)
    with Server.start(max_request_rows=7000, max_waiting_rows=7000) as server:
        answer = server.predict(rows, OCTETS, dtype="uint8", top_k=10)
        expected = (
            413,
            "too-large",
            "^7000 rows with 10 classes each are too much to write at once; .*array",
        )
        assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)
        assert server.array(rows, OCTETS, dtype="uint8", top_k=10).shape == (7000, 10)


def with_right_checksum(png: bytes) -> bytes:
    return png[:29] + zlib.crc32(png[12:29]).to_bytes(4, "big") + png[33:]
