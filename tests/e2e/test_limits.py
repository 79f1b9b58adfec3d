"""Each limit is a setting that is kept: what the others' tests do not set low."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import OCTETS, Digits
from .problems import assert_problem
from .server import Server, until
from .wire import Reply, head, is_closed, reply

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

KIB = 1024
CONNECTIONS = 8
TOO_MANY = (503, "too-many-connections", "as many connections as there may be")


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """A body may be 64 KiB, and 16 once it is inflated; four rows a request; eight connections."""
    limits = {"max_body_mb": 64 / KIB, "max_inflated_mb": 16 / KIB, "max_request_rows": 4}
    with Server.start(**limits, max_connections=CONNECTIONS, workers=1) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def infer(server: Server, size: int, *, is_compressed: bool) -> tuple[int, str]:
    """What is said to a body of so many bytes, which is no request but as long as one."""
    content = b" " * size
    headers = {"Content-Encoding": "gzip"} if is_compressed else {}
    sent = gzip.compress(content) if is_compressed else content
    answer = server.http.post("/v2/models/digits/infer", content=sent, headers=headers)
    return answer.status_code, answer.json()["error"]


def test_a_body_and_what_it_is_inflated_to_have_limits_of_their_own(narrow: Server) -> None:
    assert infer(narrow, 16 * KIB, is_compressed=True)[0] == 400
    status, why = infer(narrow, 16 * KIB + 1, is_compressed=True)
    assert (status, why) == (413, f"the body is larger than {16 * KIB} bytes once it is decompressed")
    assert infer(narrow, 64 * KIB, is_compressed=False)[0] == 400
    assert infer(narrow, 64 * KIB + 1, is_compressed=False)[0] == 413


def test_a_body_that_is_inflated_to_more_than_a_plain_one_may_have_is_read() -> None:
    with Server.start(max_body_mb=16 / KIB, max_inflated_mb=64 / KIB, workers=1) as server:
        assert infer(server, 64 * KIB, is_compressed=True)[0] == 400
        assert infer(server, 64 * KIB + 1, is_compressed=True)[0] == 413
        assert infer(server, 16 * KIB + 1, is_compressed=False)[0] == 413
        assert server.stop() == 0, server.log


@pytest.mark.parametrize(("rows", "status"), [(4, 200), (5, 413)])
def test_rows_of_a_request_have_a_limit(narrow: Server, digits: Digits, rows: int, status: int) -> None:
    body = digits.pixels[:rows].astype(np.uint8).tobytes()
    answer = narrow.predict(body, OCTETS, dtype="uint8")
    assert answer.status_code == status
    if status == 413:
        assert answer.json()["type"] == "too-large"


def ask(server: Server, path: str = "/v1/models") -> tuple[Reply, socket.socket]:
    """An answer, over a connection of its own that stays open."""
    connection = server.connect()
    connection.sendall(head(method="GET", address=path))
    return reply(connection), connection


def test_connections_have_a_limit_and_those_within_it_are_served(narrow: Server) -> None:
    narrow.http.close()  # its connection is one of them
    held: list[socket.socket] = []
    while len(held) < CONNECTIONS:
        answer, connection = ask(narrow)
        if answer.status == 200:
            held.append(connection)
        else:  # that the other one is gone is not seen yet
            assert is_closed(connection)
    refused, connection = ask(narrow)
    assert_problem(refused.status, refused.headers, refused.body, expected=TOO_MANY)
    assert refused.headers["connection"] == "close"
    assert is_closed(connection)
    for probe in ("/livez", "/readyz", "/v2/health/live"):
        answered, connection = ask(narrow, probe)
        assert answered.status == 200
        assert is_closed(connection)
    for connection in held:
        connection.sendall(head(method="GET", address="/v1/models"))
        assert reply(connection).status == 200
    held.pop().close()
    assert until(lambda: ask(narrow)[0].status == 200)
