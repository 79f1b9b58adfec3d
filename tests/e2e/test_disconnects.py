"""Clients that go away give back what they held, wherever their request was."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import MULTIPART, OCTETS, SLOW_SETTINGS, Digits, assert_serves, slow_form
from .load import rows
from .server import Server, until
from .watching import is_idle, scrape
from .wire import head, reply, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

CLIENTS = 12
ROWS = 300
BATCH = 1024


goodbyes = pytest.mark.parametrize("goodbye", [socket.socket.close, reset])


@pytest.fixture(scope="module")
def holding() -> Iterator[Server]:
    """A server that holds its queue for longer than any test takes, unless a batch is full."""
    with Server.start(workers=2, max_delay_ms=10_000, timeout_ms=3_600_000, max_batch=BATCH) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def request(content: bytes) -> bytes:
    """As many rows as that is, to be answered with all their logits."""
    address = "/v1/models/digits/predict?dtype=uint8&output=logits"
    start = head(f"Content-Length: {len(content)}", address=address)
    return start.replace(b"image/png", OCTETS.encode()) + content


def assert_serves_full_batch(server: Server, digits: Digits, count: int = BATCH) -> None:
    """So many rows, which make the batch full, so that nobody waits for company any more."""
    asks = [rows(digits, 0, 512), rows(digits, 1, count - 512)]
    clients = [server.connect() for _ in asks]
    for client, ask in zip(clients, asks, strict=True):
        client.sendall(ask.request)
    for client, ask in zip(clients, asks, strict=True):
        with client:
            answer = reply(client)
            assert answer.status == 200, answer.body
            assert tuple(row["index"] for row in answer.body["predictions"]) == ask.indices


@goodbyes
def test_in_the_middle_of_a_body(
    holding: Server, digits: Digits, goodbye: Callable[[socket.socket], None]
) -> None:
    content = bytes(64 * ROWS)
    cuts = np.linspace(1, len(request(content)) - 1, CLIENTS).astype(int).tolist()
    clients = [holding.connect() for _ in cuts]
    for client, cut in zip(clients, cuts, strict=True):
        client.sendall(request(content)[:cut])
    assert scrape(holding)["foldserve_slots_in_use",] == 0, "a slow upload holds room"
    for client in clients:
        goodbye(client)
    assert_serves_full_batch(holding, digits)
    until(lambda: is_idle(holding))


@goodbyes
def test_in_the_queue(holding: Server, digits: Digits, goodbye: Callable[[socket.socket], None]) -> None:
    before = scrape(holding)
    clients = [holding.connect() for _ in range(CLIENTS)]
    for client in clients[:-1]:
        client.sendall(request(bytes(64)))
    patient = rows(digits, 7, 5)
    clients[-1].sendall(patient.request)
    until(lambda: scrape(holding)["foldserve_waiting_rows",] == CLIENTS - 1 + 5)
    until(lambda: scrape(holding)["foldserve_slots_in_use",] == 2 * CLIENTS)
    for client in clients[:-1]:
        goodbye(client)
    until(lambda: scrape(holding)["foldserve_waiting_rows",] == 5)
    until(lambda: scrape(holding)["foldserve_slots_in_use",] == 2)
    assert_serves_full_batch(holding, digits, BATCH - 5)
    with clients[-1] as client:
        answer = reply(client)
        assert tuple(row["index"] for row in answer.body["predictions"]) == patient.indices
    until(lambda: is_idle(holding))
    after = scrape(holding)
    computed = "foldserve_rows_total", "digits", "1"
    assert after[computed] == before.get(computed, 0) + BATCH, "rows of nobody were computed"
    gone = "foldserve_requests_total", "digits", "cancelled"
    assert after[gone] == before.get(gone, 0) + CLIENTS - 1


@goodbyes
def test_while_its_images_are_decoded(digits: Digits, goodbye: Callable[[socket.socket], None]) -> None:
    body = slow_form()
    start = head(f"Content-Length: {len(body)}").replace(b"image/png", MULTIPART.encode())
    with Server.start(workers=1, **SLOW_SETTINGS) as server:
        client = server.connect()
        client.sendall(start + body)
        until(lambda: scrape(server)["foldserve_slots_in_use",] > 0)
        goodbye(client)
        until(lambda: is_idle(server))
        seen = scrape(server)
        assert seen["foldserve_requests_total", "digits", "cancelled"] == 1
        assert seen.get(("foldserve_rows_total", "digits", "1"), 0) == 0, "rows of nobody were computed"
        assert_serves(server, digits)
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


@goodbyes
def test_in_the_middle_of_an_answer(digits: Digits, goodbye: Callable[[socket.socket], None]) -> None:
    limits = {"max_request_rows": 100_000, "max_waiting_rows": 1_000_000, "timeout_ms": 3_600_000}
    with Server.start(workers=2, **limits) as server:
        content = bytes(64 * 10_000)  # answered with megabytes
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request(content))
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
            goodbye(client)
        until(lambda: is_idle(server))
        assert_serves(server, digits)
        assert scrape(server)["foldserve_workers",] == 2
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log
