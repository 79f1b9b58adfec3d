"""The body limit: no request brings more bytes than allowed, whatever its headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import InputTooLarge
from service.web.problems import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FAULT = "fault"
"""Where in the state of a request its connection leaves the error that ended the body."""


class BodyLimit:
    """Answers 413 at the header where it tells the truth, else at the first byte too many.

    Where the connection ends a body before its end, the one who reads the body gets the reason.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._announces_too_much(scope):
            response = problem(self._too_large(), scope["path"])
            response.headers["Connection"] = "close"  # the body is not read, so nothing can follow it
            await response(scope, receive, send)
            return
        await self._app(scope, self._counted(receive, scope.get("state", {})), send)

    def _announces_too_much(self, scope: Scope) -> bool:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        return bool(announced.isdigit() and int(announced) > self._max_bytes)

    def _counted(self, receive: Receive, state: Mapping[str, Any]) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if FAULT in state:
                raise state[FAULT]
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> InputTooLarge:
        return InputTooLarge(f"the body is larger than {self._max_bytes} bytes")
