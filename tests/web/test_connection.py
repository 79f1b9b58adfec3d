"""What one client may do with its connection, on real sockets, over applications of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import subprocess
import time
from shutil import which
from typing import TYPE_CHECKING, Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import Server, ServerState

from service.web.alarm import Alarm
from service.web.interest import GONE, WATCHERS

from .serving import GET, PATIENCE, answer, echo, received, received_one, run, serving

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

SHORT: dict[str, Any] = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "idle_timeout_s": 0.3}
PIECE = 64 * 1024
CURL = subprocess.check_output(["curl", "--version"], text=True) if which("curl") else ""


def post(*headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def slugs(found: bytes) -> list[str]:
    """The types of the problems in what was received, which has nothing behind the last one."""
    return [
        json.loads(b"{" + part.partition(b"}")[0] + b"}")["type"] for part in found.split(b"\r\n\r\n{")[1:]
    ]


def sent(*pieces: bytes, app: Any = echo, **settings: Any) -> bytes:
    """What comes back where these pieces are sent and the connection is then left alone."""

    async def talk() -> bytes:
        async with serving(app, **SHORT | settings) as running:
            return await received(running.connect(*pieces))

    return run(talk())


# --- what of uvicorn's the connections rely on


def test_uvicorn_still_has_what_connections_are_built_on() -> None:
    """Where this fails, uvicorn has renamed something: read `service/web/connection.py` beside its source."""

    async def made() -> tuple[Any, Any]:
        protocol = httptools_impl.HttpToolsProtocol(Config(cast("Any", echo)), ServerState(), {})
        asked: Any = dict.fromkeys(inspect.signature(httptools_impl.RequestResponseCycle).parameters)
        return protocol, httptools_impl.RequestResponseCycle(**{**asked, "keep_alive": True})

    protocol, cycle = run(made())
    protocol.on_message_begin()  # sets `url`
    expected = {
        protocol: [
            *("app", "connections", "client", "scope"),
            *("loop", "transport", "flow", "cycle", "server_state", "headers", "pipeline"),
            *("parser", "url", "on_url", "on_header"),
            *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
            *("on_message_begin", "on_headers_complete", "on_body", "on_message_complete"),
            *(
                "on_response_complete",
                "shutdown",
                "_start_asgi_task",
            ),
        ],
        cycle: [
            *("scope", "keep_alive", "more_body", "message_event", "disconnected", "response_started"),
            *("response_complete", "waiting_for_100_continue", "default_headers"),
        ],
        ServerState: [],
        FlowControl: ["pause_reading", "resume_reading"],
        Server: ["startup", "shutdown"],
        httptools_impl: ["STATUS_LINE"],
    }
    missing = [
        (thing, name) for thing, names in expected.items() for name in names if not hasattr(thing, name)
    ]
    assert missing == []
    assert {"config", "server_state", "app_state"} < set(inspect.signature(type(protocol)).parameters)
    assert {"connections", "default_headers", "total_requests"} < set(vars(ServerState()))


# --- clients that are late


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((), []),
        ((b"\r\n",), []),
        ((b"G",), ["request-timeout"]),
        ((GET[:-2],), ["request-timeout"]),
        ((post("Content-Length: 2"),), ["request-timeout"]),
        ((post("Content-Length: 2"), b"1"), ["request-timeout"]),
        ((post("Transfer-Encoding: chunked"), b"1\r\n1\r\n"), ["request-timeout"]),
        ((post("Content-Length: 2", "Expect: 100-continue"),), ["request-timeout"]),
    ],
    ids=str,
)
def test_client_that_stops_is_told_so_where_it_had_begun(
    pieces: tuple[bytes, ...], expected: list[str]
) -> None:
    found = sent(*pieces)
    assert slugs(found) == expected
    assert found.count(b"HTTP/1.1 408 Request Timeout\r\n") == len(expected)
    assert found.lower().count(b"connection: close\r\n") == len(expected)


def test_time_of_a_further_request_begins_with_its_first_byte_and_not_before() -> None:
    found = sent(GET, GET[:-2], idle_timeout_s=60)
    assert found.startswith(b"HTTP/1.1 200")
    assert slugs(found) == ["request-timeout"]


def test_idle_connection_is_closed_without_a_word() -> None:
    found = sent(GET, header_timeout_s=60)
    assert found.count(b"HTTP/1.1") == 1
    assert found.endswith(b"\r\n\r\n0")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (GET[:-2] + b"X: ", b"x"),
        (GET + GET[:-2] + b"X: ", b"x"),
        (post("Content-Length: 100000"), b"x"),
        (post("Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    ],
    ids=["headers", "headers of a second request", "body", "chunks"],
)
def test_client_that_drips_gets_no_more_time_than_one_that_stops(start: bytes, piece: bytes) -> None:
    async def talk() -> bytes:
        async with serving(echo, **SHORT | {"idle_timeout_s": 60}) as running:
            client = running.connect(start)
            answered = asyncio.create_task(received(client))
            while not answered.done():
                try:
                    client.send(piece)
                except OSError:
                    break
                await asyncio.sleep(0.02)
            return await answered

    assert slugs(run(talk()).removesuffix(b"<reset>")) == ["request-timeout"]


def test_slow_upload_above_the_least_rate_is_waited_for() -> None:
    async def talk() -> tuple[bytes, float]:
        async with serving(echo, **SHORT) as running:
            client = running.connect(post(f"Content-Length: {8 * PIECE}"))
            began = time.monotonic()
            for _ in range(8):  # each of them earns four seconds
                client.sendall(bytes(PIECE))
                await asyncio.sleep(0.1)
            return await received(client), time.monotonic() - began

    found, took_s = run(talk())
    assert took_s > 2 * SHORT["body_timeout_s"]
    assert found.endswith(b"\r\n\r\n%d" % (8 * PIECE))


def test_time_in_which_the_service_does_not_read_is_not_the_client_s() -> None:
    async def reluctant(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 * SHORT["body_timeout_s"])  # more than the buffers hold waits in the client
        await echo(scope, receive, send)

    size = 32 << 20
    expected = b"\r\n\r\n%d" % size

    async def talk() -> bytes:
        # The least rate would allow the body half an hour, were it counted as come.
        async with serving(reluctant, **SHORT) as running:
            client = running.connect(post(f"Content-Length: {size}"))
            sending = asyncio.to_thread(client.sendall, bytes(size))
            found, _ = await asyncio.gather(received_one(client), sending)
            client.close()
            return found

    assert run(talk()).endswith(expected)


def test_body_behind_a_request_that_takes_long_has_its_whole_time() -> None:
    async def reluctant(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await asyncio.sleep(3)
        await echo(scope, receive, send)

    async def talk() -> bytes:
        async with serving(reluctant, **SHORT | {"body_timeout_s": 2}) as running:
            client = running.connect(GET + post("Content-Length: 2"))  # the second is read no further
            await received_one(client)
            await asyncio.sleep(0.3)
            client.sendall(b"ab")
            return await received(client)

    assert run(talk()).endswith(b"\r\n\r\n2")


def test_client_that_waits_to_be_asked_for_its_body_is_not_late() -> None:
    """Neither before it is asked, however long that takes, nor soon afterwards."""
    times = SHORT | {"body_timeout_s": 1}

    async def reluctant(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.9 * times["body_timeout_s"])
        await echo(scope, receive, send)

    async def talk() -> bytes:
        async with serving(reluctant, **times) as running:
            client = running.connect(post("Content-Length: 2", "Expect: 100-continue"))
            assert await received_one(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await asyncio.sleep(times["body_timeout_s"] / 2)
            client.sendall(b"ab")
            return await received(client)

    assert run(talk()).endswith(b"\r\n\r\n2")


def test_bytes_that_came_while_the_service_was_held_up_came_in_time() -> None:
    async def talk() -> list[bytes]:
        async with serving(echo, **SHORT) as running:
            clients = [running.connect(GET[:-2]), running.connect(post("Content-Length: 2"), b"a")]
            await running.until_open(2)
            await asyncio.sleep(0.1)
            for client, rest in zip(clients, (b"\r\n", b"b"), strict=True):
                client.sendall(rest)
            time.sleep(2 * SHORT["header_timeout_s"])  # noqa: ASYNC251 - it is the loop that is held up
            return [await received(client) for client in clients]

    assert all(found.startswith(b"HTTP/1.1 200") for found in run(talk()))


# --- clients that do not read


def test_answer_that_nobody_reads_is_given_up() -> None:
    gone = asyncio.Event()

    async def generous(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(64 << 20))  # more than the kernel's buffers hold
        gone.set()

    async def talk() -> bytes:
        async with serving(generous, **SHORT) as running:
            client = running.connect(GET)
            await gone.wait()
            await running.until_open(0)
            return await received(client)

    assert len(run(talk())) < 64 << 20


def test_answer_that_is_read_slowly_arrives_whole() -> None:
    size = 64 << 20

    async def generous(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(size))

    async def talk() -> int:
        async with serving(generous, **SHORT | {"idle_timeout_s": 1}) as running:
            with running.connect(GET) as client:
                length = 0
                while length < size:  # for longer than the limit, but never for so long at once
                    piece = await asyncio.to_thread(client.recv, 1 << 18, socket.MSG_WAITALL)
                    assert piece, f"cut behind {length} bytes"
                    length += len(piece)
                    await asyncio.sleep(0.01)
                return length

    assert run(talk()) >= size


@pytest.mark.parametrize("last", ["close", "keep-alive"])
def test_answer_that_is_small_enough_to_be_left_to_the_transport_is_given_up_too(last: str) -> None:
    """The request counts as answered; the close then waits for the client."""

    async def talk() -> None:
        async with serving(echo, **SHORT) as running:
            client = running.connect()
            await running.until_open(1)
            (connection,) = running.server.server_state.connections
            connection.transport.set_write_buffer_limits(high=1 << 30)
            connection.transport.write(bytes(64 << 20))
            client.sendall(GET[:-2] + f"Connection: {last}\r\n\r\n".encode())
            await running.until_open(0)
            client.close()

    run(talk())


def test_answer_in_parts_that_nobody_reads_is_given_up_between_them() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": bytes(64 << 20), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # waits for the client

    async def talk() -> None:
        async with serving(endless, **SHORT) as running:
            client = running.connect(GET)
            await running.until_open(1)
            await running.until_open(0)
            client.close()

    run(talk())


# --- clients that speak no HTTP, or too much


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "invalid-http"),
        (b"GET / HTTP/9.9\r\n\r\n", "invalid-http"),
        (post("Content-Length: -1"), "invalid-http"),
        (post("Transfer-Encoding: chunked") + b"x\r\n", "invalid-http"),
        (GET[:-2] + b"X: " + bytes([120]) * 400_000, "headers-too-large"),
        (post("Transfer-Encoding: chunked") + b"1;" + b"x" * 400_000, "headers-too-large"),
        (post("Transfer-Encoding: chunked") + b"0\r\nX: " + b"x" * 400_000, "headers-too-large"),
    ],
    ids=["TLS", "version", "length", "chunk", "header", "chunk extension", "trailer"],
)
def test_what_is_not_http_is_refused_as_a_problem(piece: bytes, expected: str) -> None:
    found = sent(piece, header_timeout_s=60, body_timeout_s=60)
    assert slugs(found.removesuffix(b"<reset>")) == [expected]
    assert b"connection: close\r\n" in found.lower()


def test_garbage_behind_a_request_takes_nothing_from_its_answer() -> None:
    found = sent(GET + GET + b"garbage\r\n\r\n")
    assert found.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert slugs(found) == []
    assert found.count(b"connection: close\r\n") == 1


def test_trailers_are_no_headers() -> None:
    async def headers(scope: Scope, receive: Receive, send: Send) -> None:
        await echo_nothing(receive)
        await answer(send, b",".join(name for name, _ in scope["headers"]))

    async def echo_nothing(receive: Receive) -> None:
        while (await receive())["more_body"]:
            pass

    found = sent(post("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nAuthorization: x\r\n\r\n", app=headers)
    assert found.endswith(b"\r\n\r\nhost,transfer-encoding")


@pytest.mark.parametrize("target", [b"/v2/models/a/infer", b"/v2", b"/%762/x?y=z", b"http://test/v2/x"])
@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"X: y\r\n", b"408"),
        (b"X: " + bytes([120]) * 400_000, b"431"),
        (b"Content-Length: -1\r\n\r\n", b"400"),
    ],
    ids=["late", "endless", "wrong"],
)
def test_errors_before_a_route_are_in_the_words_of_the_protocol_under_its_addresses(
    target: bytes, rest: bytes, status: bytes
) -> None:
    start = b"POST " + target + b" HTTP/1.1\r\nHost: test\r\n"
    head, _, content = sent(start, rest).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"content-type: application/json\r\n" in head.lower()
    assert list(json.loads(content.removesuffix(b"<reset>"))) == ["error"]


@pytest.mark.parametrize("behind", [b"\x16\x03\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET /v1 HTTP/1.1\r\n"])
def test_what_follows_a_request_of_the_protocol_is_judged_by_itself(behind: bytes) -> None:
    async def talk() -> bytes:
        async with serving(echo, **SHORT | {"idle_timeout_s": 60}) as running:
            client = running.connect(GET.replace(b"/", b"/v2", 1))
            await received_one(client)
            client.sendall(behind)
            return await received(client)

    assert len(slugs(run(talk()))) == 1


# --- what must go on working


def test_requests_in_one_packet_are_answered_in_order() -> None:
    bodies = [b"x" * length for length in range(16)]
    found = sent(b"".join(post(f"Content-Length: {len(body)}") + body for body in bodies))
    assert [int(part.partition(b"HTTP")[0]) for part in found.split(b"\r\n\r\n")[1:]] == list(range(16))


def test_client_that_goes_away_is_missed_by_the_request_that_is_being_answered() -> None:
    """Not only by the one that came last, behind it."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await answer(send, b"to nobody")
        told.set()

    async def talk() -> None:
        async with serving(patient, **SHORT) as running:
            client = running.connect(GET + GET)
            await begun.wait()
            client.close()
            await asyncio.wait_for(told.wait(), PATIENCE)

    run(talk())


def test_client_that_went_away_is_known_to_have_gone_by_whoever_looks_later() -> None:
    """As one who was parsing on a thread when it happened."""
    begun, go_on, found = asyncio.Event(), asyncio.Event(), list[bool]()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(GONE in scope["state"])
        begun.set()
        await go_on.wait()
        found.append(scope["state"][GONE])

    async def talk() -> None:
        async with serving(busy, **SHORT) as running:
            client = running.connect(GET)
            await begun.wait()
            client.close()
            await running.until_open(0)
            go_on.set()
            await asyncio.sleep(0)

    run(talk())
    assert found == [False, True]


def test_client_that_goes_away_behind_a_large_body_is_missed_at_once() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][WATCHERS].add(told.set)
        while (await receive())["more_body"]:
            pass
        begun.set()
        await told.wait()

    async def talk() -> None:
        async with serving(busy) as running:
            client = running.connect(post(f"Content-Length: {4 * PIECE}"), bytes(4 * PIECE))
            await begun.wait()
            client.close()
            await asyncio.wait_for(told.wait(), PATIENCE)

    run(talk())


def offering(*headers: str, upgrade: str = "h2c") -> bytes:
    """What Java's HTTP client and `curl --http2` send where there is no TLS."""
    return post(
        "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMA", *headers
    )


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_offer_to_speak_another_protocol_is_passed_over(upgrade: str) -> None:
    async def talk() -> bytes:
        async with serving(echo, **SHORT) as running:
            client = running.connect(offering(upgrade=upgrade))
            first = await received_one(client)
            client.sendall(offering(upgrade=upgrade) + GET)
            return first + await received(client)

    assert run(talk()).count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize("together", [True, False], ids=["one packet", "two packets"])
@pytest.mark.parametrize(
    ("header", "body"),
    [
        (f"Content-Length: {len(GET)}", GET),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(GET), GET)),
    ],
    ids=["length", "chunks"],
)
def test_body_of_a_request_that_offers_another_protocol_is_its_body_and_no_request(
    header: str, body: bytes, together: bool
) -> None:
    async def talk() -> bytes:
        async with serving(echo, **SHORT) as running:
            client = running.connect(offering(header) + (body + GET if together else b""))
            if not together:
                await running.until_open(1)
                await asyncio.sleep(0.05)
                client.sendall(body + GET)
            return await received(client)

    answers = [part.partition(b"HTTP")[0] for part in run(talk()).split(b"\r\n\r\n")[1:]]
    assert answers == [b"%d" % len(GET), b"0"]


@pytest.mark.skipif("HTTP2" not in CURL, reason="there is no curl that speaks HTTP/2")
def test_curl_that_would_rather_speak_another_protocol_has_its_body_read() -> None:
    async def talk() -> bytes:
        async with serving(echo) as running:
            url = "http://{}:{}/".format(*running.address)
            curl = await asyncio.create_subprocess_exec(
                *("curl", "-s", "--noproxy", "*", "--http2", "--data-binary", GET.decode(), url), stdout=-1
            )
            return (await curl.communicate())[0]

    assert run(talk()) == b"%d" % len(GET)


def test_connection_is_made_into_no_tunnel() -> None:
    found = sent(b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n" + GET)
    assert slugs(found) == ["invalid-http"]


def test_what_strangers_send_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for piece in (b"garbage\r\n\r\n", offering(), post("Content-Length: -1")):
        sent(piece)
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_only_so_many_requests_wait_on_one_connection_and_all_of_them_are_answered() -> None:
    answered = 0

    async def one_by_one(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answered
        await asyncio.sleep(0)
        answered += 1
        await echo(scope, receive, send)

    found = sent(GET * 2000, app=one_by_one)
    assert found.count(b"HTTP/1.1 200 OK\r\n") == answered == 17
    assert slugs(found.removesuffix(b"<reset>")) == []
    assert found.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("rest", ["never", "drips", "comes"])
def test_body_that_nobody_wants_does_not_keep_its_connection_open(rest: str) -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    async def talk() -> bytes:
        async with serving(refusing, **SHORT) as running:
            client = running.connect(post("Content-Length: 1000"))
            answered = asyncio.create_task(received(client))
            for _ in range(1000 if rest == "comes" else 0):
                client.send(b"x")
            while rest == "drips" and not answered.done():
                try:
                    client.send(b"x")
                except OSError:
                    break
                await asyncio.sleep(0.02)
            return await answered

    found = run(talk()).removesuffix(b"<reset>")
    assert found.count(b"HTTP/1.1") == 1
    assert found.endswith(b"\r\n\r\nno")


def test_body_that_nobody_wants_is_read_no_further_than_a_body_may_be() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    async def talk() -> int:
        async with serving(refusing, max_body_mb=1) as running:
            client = running.connect(post("Content-Length: 1000000000"))
            await received_one(client)
            taken = 0
            with contextlib.suppress(ConnectionError):
                while taken < 1000 * PIECE:
                    taken += await asyncio.to_thread(client.send, bytes(PIECE))
            client.close()
            return taken

    assert run(talk()) < 500 * PIECE  # what the kernel's buffers hold comes on top


# --- the alarm


def test_alarm_rings_once_at_the_time_that_was_set_last() -> None:
    async def talk() -> list[float]:
        loop, rung = asyncio.get_running_loop(), list[float]()
        alarm, began = Alarm(loop, lambda: rung.append(loop.time() - began)), loop.time()
        for at in (10.0, 0.01, 0.2):
            alarm.set(began + at)
        alarm.advance(began + 10)
        while not rung:  # noqa: ASYNC110 - the alarm tells nobody else
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        return rung

    (rung_at,) = run(talk())
    assert rung_at >= 0.2


def test_alarm_that_is_cleared_or_cancelled_does_not_ring() -> None:
    async def talk() -> list[str]:
        loop, rung = asyncio.get_running_loop(), list[str]()
        cleared, cancelled = Alarm(loop, lambda: rung.append("a")), Alarm(loop, lambda: rung.append("b"))
        for alarm in (cleared, cancelled):
            alarm.set(loop.time() + 0.05)
        cleared.clear()
        cancelled.cancel()
        await asyncio.sleep(0.3)
        assert rung == []
        cleared.set(loop.time())
        while not rung:  # noqa: ASYNC110 - the alarm tells nobody else
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return rung

    assert run(talk()) == ["a"]
