"""A load: clients that ask again and again over connections they keep, whatever becomes of the service."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from .server import PATIENCE, until
from .wire import head

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Mapping, Sequence

    from .digits import Digits

_BEAT_S = 0.01


class Ask(NamedTuple):
    """A request, and the answer to it where it is a good one."""

    request: bytes
    indices: tuple[int, ...] = ()
    status: int = 200
    """That of its answer, as long as the service is well."""


class Outcome(NamedTuple):
    """What became of one request."""

    ask: Ask
    client: int
    """The port that it was sent from."""
    status: int
    """0 where the connection was closed instead."""
    headers: Mapping[bytes, bytes]
    body: bytes
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether it was answered as it should be."""
        return self.status == self.ask.status and (self.status != 200 or self.indices == self.ask.indices)

    @property
    def indices(self) -> tuple[int, ...]:
        predictions: list[Any] = json.loads(self.body)["predictions"]
        return tuple(prediction["index"] for prediction in predictions)

    def __repr__(self) -> str:
        return f"<{self.status} after {self.seconds:.3f} s, {self.body[:200]!r}>"


def rows(digits: Digits, first: int, count: int, **query: object) -> Ask:
    """A good request of so many rows."""
    body = digits.pixels[first : first + count].tobytes()
    address = "/v1/models/digits/predict?dtype=uint8" + "".join(f"&{k}={v}" for k, v in query.items())
    start = head(f"Content-Length: {len(body)}", address=address)
    expected = digits.logits[first : first + count].argmax(axis=1)
    return Ask(start.replace(b"image/png", b"application/octet-stream") + body, tuple(expected.tolist()))


class Load:
    """So many connections, each of which sends its next request when the last one is answered.

    One that is closed connects anew, until `end`. Leaving the block lets every request come to its end. No
    answer within `PATIENCE` is an error there. Whoever is refused comes back after `pause_s`.
    """

    def __init__(
        self, address: str, asks: Sequence[Ask], connections: int, *, most: int = 0, pause_s: float = 0.0
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.held_up_s = 0.0
        """The longest that these clients themselves were late, all at once, since others had the machine."""
        self.refusals: list[ConnectionError] = []
        self._address = urlsplit(address)
        self._asks = asks
        self._most = most or (1 << 62)
        self._connections = connections
        self._pause_s = pause_s
        self._asked = 0
        self._is_ending = self._is_over = self._may_be_refused = False
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def more(self, count: int) -> None:
        """Wait for so many more outcomes."""
        wanted = len(self.outcomes) + count
        until(lambda: len(self.outcomes) >= wanted or not self._thread.is_alive())

    def end(self) -> None:
        """Ask on over the connections that are open until they end, and make no new ones."""
        self._is_ending = True
        self.join()

    def end_when_refused(self) -> None:
        """Ask on, over new connections too, until each client is refused one."""
        self._may_be_refused = True
        self.join()

    def start(self) -> None:
        """Begin; a load of which `most` is said ends by itself."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self.join()

    def join(self) -> None:
        """Wait until the last request has come to its end."""
        self._thread.join()
        if self._failed:
            raise self._failed

    def _run(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except BaseException as failed:  # noqa: BLE001 - it is raised where it is waited for
            self._failed = failed

    async def _ask_all(self) -> None:
        watching = asyncio.create_task(self._watch_itself())
        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._connect_again_and_again())
        watching.cancel()

    async def _watch_itself(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            self.held_up_s = max(self.held_up_s, time.monotonic() - began - _BEAT_S)

    async def _connect_again_and_again(self) -> None:
        while not (self._is_done or self._is_ending):
            try:
                reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
            except ConnectionError as error:
                if self._may_be_refused:
                    self.refusals.append(error)
                    return
                await asyncio.sleep(0.01)
                continue
            await self._ask_until_closed(reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _ask_until_closed(self, reader: StreamReader, writer: StreamWriter) -> None:
        client = writer.get_extra_info("sockname")[1]
        is_last = False
        while not is_last and not self._is_done:
            ask = self._asks[self._asked % len(self._asks)]
            self._asked += 1
            sent_at = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    writer.write(ask.request)
                    status, headers, body = await _answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                status, headers, body = 0, {}, b""
            self.outcomes.append(Outcome(ask, client, status, headers, body, time.monotonic() - sent_at))
            if status == 429:
                await asyncio.sleep(self._pause_s)
            is_last = not status or headers.get(b"connection") == b"close"

    @property
    def _is_done(self) -> bool:
        return self._is_over or self._asked >= self._most


async def _answer(reader: StreamReader) -> tuple[int, Mapping[bytes, bytes], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers[b"content-length"]))
    return int(lines[0].split()[1]), headers, body
