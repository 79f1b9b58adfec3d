"""An open loop: requests at a fixed rate, whether or not the ones before were answered.

    python benchmarks/open_loop.py http://127.0.0.1:8000/v1/models/digits/predict?dtype=float32 --rate 1000 \
        --body FILE [--media-type application/octet-stream] [--seconds 5] [--core 0]

Arrivals are Poisson (or evenly spaced with `--even`), and latency counts from the time a request was meant
to be sent, so that neither a slow answer nor a slow client hides a delay. Connections are opened before, kept
and reused; a request that finds none free waits for one. Prints one JSON object: what was sent, and the
answers by status with their latencies in milliseconds; `late_ms` is how late the client itself was.
While it waits for a time that is near it does not sleep, so give it a core of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from samples import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._received = b""
        self._meant: float | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, meant: float) -> None:
        """Send a request that was meant to be sent at `meant`."""
        self._meant = meant
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end]
        length = _LENGTH.search(head)
        if len(self._received) - end - 4 < int(length[1] if length else 0):
            return
        self._received = b""
        self._answered(head[9:12].decode())
        if _CLOSES.search(head):
            self._transport.close()
        else:
            self._loop.freed(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._answered("closed")
        self._loop.lost(self)

    def _answered(self, status: str) -> None:
        if self._meant is not None:
            self._loop.answered(status, self._meant)
            self._meant = None


class Loop:
    """The schedule, the connections, and what came back."""

    def __init__(self, url: str, request: bytes, warm_up_s: float, most: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._request = request
        self._warm_up_s = warm_up_s
        self._most = most
        # The mutable state, changed on the event loop only. A loop's own clock counts whole milliseconds in
        # uvloop, so that all times are the system's.
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._open = 0
        self._counted_from = 0.0
        self._pending = 0
        self._sent = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._late_ms: list[float] = []
        self._latencies_ms: dict[str, list[float]] = defaultdict(list)

    async def run(self, gaps: Iterator[float], seconds: float, patience_s: float) -> dict[str, Any]:
        """Send for so long, wait for what is left, and say what happened."""
        await asyncio.gather(*(self._connect() for _ in range(self._most)))
        meant = time.monotonic()
        self._counted_from = meant + self._warm_up_s
        until = self._counted_from + seconds
        while meant < until:
            await _reach(meant)
            self._ask(meant)
            meant += next(gaps)
        last = time.monotonic() + patience_s
        while self._pending and time.monotonic() < last:  # noqa: ASYNC110 - nobody is left to wake it
            await asyncio.sleep(0.01)
        return self._said(seconds)

    def answered(self, status: str, meant: float) -> None:
        """Count an answer, or `closed` where the connection ended without one."""
        self._pending -= 1
        if meant >= self._counted_from:
            self._latencies_ms[status].append(1000 * (time.monotonic() - meant))

    def freed(self, connection: Connection) -> None:
        """Take a connection back, for whoever waits the longest."""
        if self._waiting:
            connection.send(self._request, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection, and open one where somebody waits."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect_soon()

    def _ask(self, meant: float) -> None:
        self._pending += 1
        if meant >= self._counted_from:
            self._sent += 1
            self._late_ms.append(1000 * (time.monotonic() - meant))
        if self._idle:
            self._idle.pop().send(self._request, meant)
            return
        self._waiting.append(meant)
        if self._open < self._most:
            self._connect_soon()

    def _connect_soon(self) -> None:
        task = asyncio.ensure_future(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError:
            self._open -= 1
            if self._waiting:
                self.answered("refused connection", self._waiting.popleft())
            return
        self.freed(made)

    def _said(self, seconds: float) -> dict[str, Any]:
        answered = sum(map(len, self._latencies_ms.values()))
        return {
            "seconds": seconds,
            "sent": self._sent,
            "unanswered": self._sent - answered,
            "connections": self._most,
            "late_ms": {"p50": percentile(self._late_ms, 0.5), "p99": percentile(self._late_ms, 0.99)},
            "answers": {
                status: {
                    "count": len(ms),
                    **{f"p{p}_ms": percentile(ms, p / 100) for p in (50, 90, 99)},
                    "max_ms": max(ms),
                }
                for status, ms in sorted(self._latencies_ms.items())
            },
        }


async def _reach(moment: float) -> None:
    """Wait until then; at the least, answers that are there are read."""
    await asyncio.sleep(0)
    while (ahead := moment - time.monotonic()) > 0:  # noqa: ASYNC110 - no timer is as exact
        await asyncio.sleep(ahead - 0.002 if ahead > 0.003 else 0)


def poisson(rate: float) -> Iterator[float]:
    """Seconds between arrivals that know nothing of each other, `rate` a second."""
    generator = random.Random(0)  # noqa: S311 - the same schedule in every run
    while True:
        yield generator.expovariate(rate)


def even(rate: float) -> Iterator[float]:
    """The same seconds between all arrivals."""
    while True:
        yield 1 / rate


def post(url: str, media_type: str, body: bytes) -> bytes:
    """A whole request."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Send and print."""
    arguments = _arguments()
    if arguments.core is not None:
        os.sched_setaffinity(0, [arguments.core])
    import uvloop

    request = post(arguments.url, arguments.media_type, arguments.body.read_bytes())
    gaps = (even if arguments.even else poisson)(arguments.rate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def run() -> dict[str, Any]:
            loop = Loop(arguments.url, request, arguments.warm_up, arguments.connections)
            return await loop.run(gaps, arguments.seconds, arguments.patience)

        print(json.dumps(runner.run(run())))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--body", type=Path, required=True, help="a file with the body")
    parser.add_argument("--media-type", default="application/octet-stream")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before that, not counted")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to wait for the last answers")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--even", action="store_true", help="evenly spaced arrivals in place of Poisson's")
    parser.add_argument("--core", type=int, help="the core to run on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
