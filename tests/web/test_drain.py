"""At shutdown no request is lost that was sent on an open connection, wherever in the kernel it lies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from service.web.listening import has_waiting, refuse_newcomers

from .serving import GET, answer, echo, received, received_one, run, serving

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LAST = b"connection: close\r\n"


def test_connection_in_the_accept_queue_is_answered_and_told_that_it_was_the_last() -> None:
    async def talk() -> list[bytes]:
        async with serving(echo) as running:
            clients = [running.connect(GET) for _ in range(100)]
            await running.drain()
            return [await received(client) for client in clients]

    for found in run(talk()):
        assert found.startswith(b"HTTP/1.1 200")
        assert LAST in found


def test_request_on_its_way_over_an_idle_connection_is_answered() -> None:
    async def talk() -> bytes:
        async with serving(echo) as running:
            client = running.connect(GET)
            assert LAST not in await received_one(client)
            client.sendall(GET)  # lies in the kernel when the drain begins
            await running.drain()
            return await received(client)

    found = run(talk())
    assert found.startswith(b"HTTP/1.1 200")
    assert LAST in found


def test_request_that_comes_a_moment_after_the_drain_began_is_answered() -> None:
    async def talk() -> list[bytes]:
        async with serving(echo) as running:
            served, silent = running.connect(GET), running.connect()
            await received_one(served)
            drain = asyncio.create_task(running.drain())
            await asyncio.sleep(0.05)
            for client in (served, silent):
                client.sendall(GET)
            found = [await received(client) for client in (served, silent)]
            await drain
            return found

    for found in run(talk()):
        assert found.startswith(b"HTTP/1.1 200")
        assert LAST in found


def test_idle_silent_and_unfinished_connections_are_closed_without_a_word() -> None:
    async def talk() -> list[bytes]:
        async with serving(echo) as running:
            served, silent, half = running.connect(GET), running.connect(), running.connect(GET[:-2])
            await received_one(served)
            await running.until_open(3)
            await running.drain()
            return [await received(client) for client in (served, silent, half)]

    assert run(talk()) == [b"", b"", b""]


def test_answer_in_the_making_is_the_last_of_its_connection() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await answer(send, b"done")

    async def talk() -> bytes:
        async with serving(slow) as running:
            client = running.connect(GET)
            await begun.wait()
            drain = asyncio.create_task(running.drain())
            await asyncio.sleep(1)  # longer than idle connections linger
            go_on.set()
            await drain
            return await received(client)

    found = run(talk())
    assert LAST in found
    assert found.endswith(b"done")


def test_answer_that_had_begun_before_the_drain_leaves_time_for_the_next_request() -> None:
    """It cannot say any more that it is the last, so that its client may well send another."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def two_parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async def talk() -> tuple[bytes, bytes]:
        async with serving(two_parts) as running:
            client = running.connect(GET)
            await begun.wait()
            drain = asyncio.create_task(running.drain())
            await asyncio.sleep(0.05)
            go_on.set()
            first = await received_one(client)
            client.sendall(GET)
            second = await received(client)
            await drain
            return first, second

    first, second = run(talk())
    assert LAST not in first
    assert first.endswith(b"ab")
    assert LAST in second
    assert second.endswith(b"ab")


def test_upload_that_goes_on_through_the_drain_is_answered() -> None:
    async def talk() -> bytes:
        async with serving(echo) as running:
            client = running.connect(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n12")
            await running.until_open(1)
            drain = asyncio.create_task(running.drain())
            await asyncio.sleep(1)  # longer than idle connections linger
            client.sendall(b"34")
            await drain
            return await received(client)

    found = run(talk())
    assert LAST in found
    assert found.endswith(b"\r\n\r\n4")


def test_client_that_drips_headers_does_not_hold_the_drain_up() -> None:
    async def talk() -> bytes:
        async with serving(echo, header_timeout_s=0.5, drain_timeout_s=3600) as running:
            client = running.connect(GET[:-2])
            await running.until_open(1)
            drain = asyncio.create_task(running.drain())
            while not drain.done():
                try:
                    client.send(b"x")
                except ConnectionError:
                    break
                await asyncio.sleep(0.01)
            await drain
            return await received(client)

    assert run(talk()) in (b"", b"<reset>")


def test_body_that_nobody_wants_does_not_hold_the_drain_up() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    async def talk() -> bytes:
        async with serving(refusing, body_timeout_s=3600, drain_timeout_s=3600) as running:
            client = running.connect(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
            first = await received_one(client)
            drain = asyncio.create_task(running.drain())
            while not drain.done():
                with contextlib.suppress(ConnectionError):
                    client.send(b"x")
                await asyncio.sleep(0.01)
            await drain
            client.close()
            return first

    assert run(talk()).endswith(b"no")


def has_loopback(address: str) -> bool:
    """Whether this machine has the address; containers often have no IPv6."""
    try:
        socket.create_server((address, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


WITHOUT_IPV6 = pytest.mark.skipif(not has_loopback("::1"), reason="this machine has no ::1")


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=WITHOUT_IPV6)])
def test_no_handshake_begins_on_a_socket_that_refuses_newcomers_and_what_waits_is_kept(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listening:
        bound = listening.getsockname()
        assert not has_waiting(listening)
        with socket.create_connection(bound[:2]) as early:
            refuse_newcomers(listening)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(bound[:2])
            early.sendall(b"early")
            assert has_waiting(listening)
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.recv(5) == b"early"
