"""The body limit: no request brings more bytes than allowed, whatever its headers say."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from service.errors import InputTooLarge, QueueFull
from service.web.problems import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_DIGITS = 20

HOLD = "hold"
"""Where in its state whoever inflates a body finds what to call with the bytes that this adds."""
FAULT = "fault"
"""Where in the state of a request its connection leaves the error that ended the body."""


class _Body:
    """One request's: how much of it came, and whether the rest is not wanted."""

    length = 0
    is_refused = False


class BodyLimit:
    """Answers 413 at the header where it tells the truth, else at the first byte too many.

    All bodies together may have `max_held_bytes` at a time, each until its request is answered; whose
    body would be more is answered with 429. Where the connection ends a body before its end, the one
    who reads the body gets the reason.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_held_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        # The mutable state: bytes that came of the bodies of all requests that are not answered yet.
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._announces_too_much(scope):
            response = problem(self._too_large(), scope["path"])
            response.headers["Connection"] = "close"  # the body is not read, so nothing can follow it
            await response(scope, receive, send)
            return
        body, state = _Body(), scope.setdefault("state", {})
        state[HOLD] = partial(self._hold, body)
        try:
            counted = self._counted(receive, body, state)
            await self._app(scope, counted, _closing(send, body))
        finally:
            self._held_bytes -= body.length

    def _announces_too_much(self, scope: Scope) -> bool:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        digits = announced.lstrip(b"0")[:_MOST_DIGITS]  # Python reads no number of thousands of digits
        return bool(digits.isdigit() and int(digits) > self._max_bytes)

    def _counted(self, receive: Receive, body: _Body, state: Mapping[str, Any]) -> Receive:
        async def counted() -> Message:
            message = await receive()
            if FAULT in state:
                raise state[FAULT]
            came = len(message.get("body", b""))
            if body.length + came > self._max_bytes:
                body.is_refused = True
                raise self._too_large()
            self._hold(body, came)
            return message

        return counted

    def _hold(self, body: _Body, came: int) -> None:
        body.length += came
        self._held_bytes += came
        body.is_refused = True
        if self._held_bytes > self._max_held_bytes:
            raise QueueFull("other bodies take all the room that there is for them", retry_after_s=1)
        body.is_refused = False

    def _too_large(self) -> InputTooLarge:
        return InputTooLarge(f"the body is larger than {self._max_bytes} bytes")


def _closing(send: Send, body: _Body) -> Send:
    """`send`, after which no request follows a body that is not read to its end."""

    async def closing(message: Message) -> None:
        if body.is_refused and message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return closing
