"""Every answer bears an id, whoever gives it; every request becomes one line; strangers are counted."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from service.telemetry import AccessLog, Telemetry
from service.web.access import Access, entry_of
from service.web.refusal import Refusal, Refusals
from tests.telemetry.reading import value
from tests.web.serving import GET, answer, echo, received, received_one, run, serving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

OURS = re.compile(rb"^x-request-id: ([0-9a-f]{32})\r$", re.MULTILINE)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SHORT: dict[str, Any] = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "idle_timeout_s": 0.3}


def get(*headers: str, path: str = "/", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode("latin-1")


def ids(found: bytes) -> list[bytes]:
    """One for each answer, in order."""
    named = re.findall(rb"^x-request-id: (.*)\r$", found, re.MULTILINE)
    assert len(named) == found.count(b"HTTP/1.1 ")
    return named


def sent(*pieces: bytes, app: Any = echo, witness: Any = lambda _: None, **settings: Any) -> bytes:
    """What comes back where these pieces are sent and the connection is then left alone."""

    async def talk() -> bytes:
        async with serving(app, witness=witness, **SHORT | settings) as running:
            return await received(running.connect(*pieces))

    return run(talk())


# Ids


def test_an_answer_bears_the_id_of_its_request_or_one_of_its_own() -> None:
    first, second, third = ids(sent(get("X-Request-Id: mine"), get(), get("x-request-id: a b")))
    assert first == b"mine"
    assert second != third
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each) for each in (second, third))


def test_an_application_that_fails_does_not_lose_the_id() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    found = sent(get("X-Request-Id: mine"), app=failing)
    assert found.startswith(b"HTTP/1.1 500")
    assert ids(found) == [b"mine"]


@pytest.mark.parametrize(
    ("piece", "status", "own"),
    [
        (get("X-Request-Id: mine", "Accept: */*")[:-2], b"408", True),
        (get("X-Request-Id: mine")[:-2] + b"X: " + b"x" * 400_000, b"431", True),
        (get("X-Request-Id: mine", "Accept: */*")[:-2] + b"not a header\r\n\r\n", b"400", True),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400", False),
        (get("X-Request-Id: mine", "Content-Length: 2", method="POST"), b"408", True),
        (get("X-Request-Id: mine", "Transfer-Encoding: chunked", method="POST") + b"x\r\n", b"400", True),
    ],
    ids=["late head", "long head", "broken head", "TLS", "late body", "broken body"],
)
def test_what_is_no_request_is_answered_with_an_id_too(piece: bytes, status: bytes, own: bool) -> None:
    found = sent(piece, header_timeout_s=5 if status != b"408" else 0.3).removesuffix(b"<reset>")
    assert found.startswith(b"HTTP/1.1 " + status)
    assert len(ids(found)) == 1
    assert (ids(found) == [b"mine"]) == own


def test_requests_in_one_packet_have_their_ids_each() -> None:
    found = sent(b"".join(get(f"X-Request-Id: id-{number}") for number in range(8)))
    assert ids(found) == [b"id-%d" % number for number in range(8)]


def test_an_id_that_would_break_an_answer_s_header_never_reaches_one() -> None:
    """Bytes that the parser lets through in a value."""
    for evil in (b"a\x80b", b"a\xffb", b"x" * 200, b"a\tb"):
        (found,) = ids(sent(b"GET / HTTP/1.1\r\nHost: test\r\nX-Request-Id: " + evil + b"\r\n\r\n"))
        assert re.fullmatch(rb"[0-9a-f]{32}", found)


# Lines


def lines_of(
    path: Path, *pieces: bytes, app: Any = echo, telemetry: Telemetry | None = None, **settings: Any
) -> list[Any]:
    """The access log of what these pieces, each over a connection of its own, were answered with."""
    telemetry = telemetry or Telemetry()

    async def talk(access: AccessLog) -> None:
        refusals = Refusals(telemetry, access)
        async with serving(Access(app, access), witness=refusals, **SHORT | settings) as running:
            for piece in pieces:
                await received(running.connect(piece))

    with path.open("wb") as file:
        access = AccessLog("json", telemetry, file.fileno())
        run(talk(access))
        access.close()
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_request_becomes_a_line(tmp_path: Path) -> None:
    piece = get("X-Request-Id: mine", f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01", path="/a/b?secret=1")
    (line,) = lines_of(tmp_path / "log", piece)
    assert line.pop("duration_ms") >= 0
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "foldserve.access",
        "method": "GET",
        "route": "",
        "path": "/a/b",
        "status": 200,
        "bytes": 1,
        "request_id": "mine",
        "trace_id": TRACE,
        "client": "127.0.0.1",
        "key": "",
    }


def test_what_is_written_in_an_address_stays_as_it_came(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path / "log", get(path="/a%0Ab%1b%20%C3%BC"))
    assert line["path"] == "/a%0Ab%1b%20%C3%BC"


def test_an_answer_in_parts_is_counted_as_a_whole(tmp_path: Path) -> None:
    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    (line,) = lines_of(tmp_path / "log", get(), app=parts)
    assert (line["status"], line["bytes"]) == (202, 15)


def test_an_application_that_fails_leaves_a_line_without_a_status(tmp_path: Path) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    (line,) = lines_of(tmp_path / "log", get("X-Request-Id: mine"), app=failing)
    assert (line["request_id"], line["status"]) == ("mine", None)


def test_what_is_learnt_on_the_way_is_in_the_line(tmp_path: Path) -> None:
    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        entry = entry_of(scope)
        assert entry
        entry.key, entry.route = "shop", "/v1/models/{model}"
        await answer(send, b"")

    (line,) = lines_of(tmp_path / "log", get(), app=noting)
    assert (line["key"], line["route"]) == ("shop", "/v1/models/{model}")


def test_what_is_refused_before_it_is_a_request_becomes_a_line_and_is_counted(tmp_path: Path) -> None:
    telemetry = Telemetry()
    late, broken = (
        get("X-Request-Id: late", "Accept: */*", path="/v1/x?secret=1")[:-2],
        b"\x16\x03\x01\x02\x00\x01\x00",
    )
    first, second = lines_of(tmp_path / "log", late, broken, telemetry=telemetry)
    assert (first["status"], first["path"], first["request_id"]) == (408, "/v1/x", "late")
    assert (second["status"], second["path"], second["client"]) == (400, "", "127.0.0.1")
    for reason in ("request-timeout", "invalid-http"):
        assert value(telemetry, "foldserve_refused_connections_total", reason=reason) == 1


def test_endless_headers_are_counted(tmp_path: Path) -> None:
    telemetry = Telemetry()
    long = get()[:-2] + b"X: " + b"x" * 400_000
    lines_of(tmp_path / "log", long, telemetry=telemetry, header_timeout_s=60)
    assert value(telemetry, "foldserve_refused_connections_total", reason="headers-too-large") == 1


def test_without_a_log_nothing_is_noted_and_requests_have_their_names_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def curious(scope: Scope, receive: Receive, send: Send) -> None:
        assert entry_of(scope) is None
        await answer(send, scope["state"]["identity"].request.encode())

    assert sent(get("X-Request-Id: mine"), app=Access(curious, None)).endswith(b"\r\n\r\nmine")


def test_a_line_that_is_logged_on_the_way_is_the_request_s() -> None:
    from service.telemetry.identity import current

    seen = []

    async def looking(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        seen.append(current.get().request)
        await answer(send, b"")

    async def talk() -> None:
        async with serving(Access(looking, None), **SHORT) as running:
            clients = [running.connect(get(f"X-Request-Id: id-{number}")) for number in range(4)]
            for client in clients:
                await received_one(client)

    run(talk())
    assert sorted(seen) == [f"id-{number}" for number in range(4)]


# Connections beyond the limit


def test_connections_beyond_the_limit_get_one_answer_and_probes_theirs() -> None:
    refused: list[Refusal] = []

    async def talk() -> Sequence[bytes]:
        async with serving(echo, max_connections=2, witness=refused.append) as running:
            clients = [running.connect() for _ in range(2)]
            await running.until_open(2)
            surplus = [running.connect(GET), running.connect(get(path="/livez")), running.connect(GET + GET)]
            answers = [await received(client) for client in surplus]
            for client in clients:  # those that were there are served as ever
                client.sendall(GET)
                answers.append(await received_one(client))
            clients[0].close()
            await running.until_open(1)
            answers.append(await received_one(running.connect(GET)))
            return answers

    first, probe, pipelined, *within = run(talk())
    for found in (first, pipelined):
        assert found.startswith(b"HTTP/1.1 503")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["type"] == "too-many-connections"
        assert b"retry-after: 1\r\n" in found.lower()
        assert found.count(b"HTTP/1.1") == found.lower().count(b"connection: close\r\n") == 1
        assert len(ids(found)) == 1
    assert probe.startswith(b"HTTP/1.1 200")
    assert all(found.startswith(b"HTTP/1.1 200") for found in within)
    assert {(each.reason, each.status, each.method, each.path) for each in refused} == {
        ("too-many-connections", 503, "GET", "/")
    }
    assert len(refused) == 2


def test_a_connection_too_many_that_says_nothing_is_closed_soon() -> None:
    async def talk() -> bytes:
        async with serving(echo, max_connections=1, header_timeout_s=3600) as running:
            running.connect()
            await running.until_open(1)
            return await received(running.connect())

    assert run(talk()) == b""


def test_refusals_are_for_debugging_or_strangers_could_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sent(b"\x16\x03\x01\x02\x00\x01\x00", witness=Refusals(Telemetry()))
    assert "invalid-http" not in caplog.text
    caplog.set_level(logging.DEBUG, "foldserve")
    sent(b"\x16\x03\x01\x02\x00\x01\x00", witness=Refusals(Telemetry()))
    assert "invalid-http" in caplog.text
