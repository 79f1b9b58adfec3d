"""No application behind the limit ever sees more bytes than allowed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import InputTooLarge, QueueFull
from service.web.body_limit import BodyLimit

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

LIMIT = 10


class Application:
    """Reads its whole body and says how long it was."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.body = b""
        self.refused: InputTooLarge | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope["type"])
        if scope["type"] != "http":
            return
        more = True
        try:
            while more:
                message = await receive()
                self.body += message.get("body", b"")
                more = message.get("more_body", False)
        except InputTooLarge as error:
            self.refused = error
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def sent(
    chunks: list[bytes], *headers: tuple[bytes, bytes], kind: str = "http"
) -> tuple[Application, list[Any], int]:
    """The application, what was answered, and how many chunks were left unread."""
    application, answers = Application(), []
    left = list(chunks)

    async def receive() -> Message:
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": kind, "method": "POST", "path": "/", "headers": list(headers)}
    asyncio.run(BodyLimit(application, LIMIT, 2 * LIMIT)(scope, receive, send))
    return application, answers, len(left)


@pytest.mark.parametrize("chunks", [[b""], [b"x" * 10], [b"x" * 5, b"", b"x" * 5], [b"x"] * 10])
def test_a_body_within_the_limit_passes_whole(chunks: list[bytes]) -> None:
    application, answers, left = sent(chunks)
    assert application.body == b"".join(chunks)
    assert (answers[0]["status"], left) == (200, 0)


@pytest.mark.parametrize("announced", [b"11", b"99999999999999999999", b"0000011", b"0" * 5000 + b"11"])
def test_a_body_that_announces_too_much_is_answered_unread(announced: bytes) -> None:
    application, answers, left = sent([b"x" * 11], (b"content-length", announced))
    assert (application.scopes, left) == ([], 1)
    start, body = answers
    headers = dict(start["headers"])
    assert start["status"] == 413
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert json.loads(body["body"]) == {
        "type": "too-large",
        "title": "Too large",
        "status": 413,
        "detail": "the body is larger than 10 bytes",
    }


def test_a_body_that_announces_the_limit_passes() -> None:
    assert sent([b"x" * 10], (b"content-length", b"10"))[1][0]["status"] == 200


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"3")], [(b"content-length", b"many")]])
def test_a_header_that_says_less_is_not_believed(headers: list[tuple[bytes, bytes]]) -> None:
    application, answers, left = sent([b"x" * 6, b"x" * 5, b"x" * 5], *headers)
    assert str(application.refused) == "the body is larger than 10 bytes"
    assert application.body == b"x" * 6, "the chunk that goes over is not handed on"
    assert (answers, left) == ([], 1)


def test_every_request_is_counted_by_itself() -> None:
    application = Application()
    limit = BodyLimit(application, LIMIT, 2 * LIMIT)

    async def once() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"x" * 8, "more_body": False}

        async def send(message: Message) -> None:
            return None

        await limit({"type": "http", "headers": []}, receive, send)

    async def main() -> None:
        await asyncio.gather(once(), once())

    asyncio.run(main())
    assert application.body == b"x" * 16
    assert application.refused is None


class Uploads:
    """Requests to one limit whose bodies come when a test says so."""

    def __init__(self) -> None:
        self.limit = BodyLimit(self._read, LIMIT, 2 * LIMIT)
        self.answers: dict[str, list[Any]] = {}
        self._coming: dict[str, asyncio.Queue[Message]] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            while (await receive())["more_body"]:
                pass
        except QueueFull:
            status = 429
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def come(self, name: str, length: int, *, more: bool = True) -> None:
        """So many bytes of the body of that name; then the loop runs until nothing more happens."""
        coming = self._coming.setdefault(name, asyncio.Queue())
        coming.put_nowait({"type": "http.request", "body": bytes(length), "more_body": more})
        if name not in self._answering:
            answers = self.answers.setdefault(name, [])

            async def send(message: Message) -> None:
                answers.append(message)

            answering = self.limit({"type": "http", "headers": []}, coming.get, send)
            self._answering[name] = asyncio.create_task(answering)
        for _ in range(10):
            await asyncio.sleep(0)

    def answer(self, name: str) -> tuple[int, list[Any]] | None:
        """Its status and its headers; None while there is none."""
        return next(((message["status"], message["headers"]) for message in self.answers[name]), None)


def test_all_bodies_together_have_a_limit_and_who_goes_over_it_gives_back_what_it_held() -> None:
    async def main() -> None:
        uploads = Uploads()
        for name in ("a", "b"):
            await uploads.come(name, 9)
        await uploads.come("c", 3)
        assert uploads.answer("c") == (429, [(b"connection", b"close")])
        assert [uploads.answer(name) for name in ("a", "b")] == [None, None]
        await uploads.come("d", 2, more=False)
        assert uploads.answer("d") == (200, [])
        await uploads.come("a", 1, more=False)
        assert uploads.answer("a") == (200, [])
        await uploads.come("e", 10, more=False)
        assert uploads.answer("e") == (200, [])
        await uploads.come("b", 0, more=False)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_request_passes_untouched(kind: str) -> None:
    application, answers, _ = sent([b"x" * 99], (b"content-length", b"99"), kind=kind)
    assert application.scopes == [kind]
    assert answers == []
