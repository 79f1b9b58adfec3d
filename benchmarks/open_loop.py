"""An open loop: requests at a fixed rate, whether or not the ones before were answered.

    python benchmarks/open_loop.py http://127.0.0.1:8000/v1/models/digits/predict?dtype=float32 --rate 1000 \
        --body FILE [--media-type application/octet-stream] [--seconds 5] [--core 0]

Arrivals are Poisson (or evenly spaced with `--even`), and latency counts from the time a request was meant
to be sent, so that neither a slow answer nor a slow client hides a delay. Connections are kept and reused;
a request that finds none free opens one. Prints one JSON object: what was sent, and the answers by status
with their latencies in milliseconds. `late_ms` says how far behind its own schedule the client was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
from collections import defaultdict
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
        """Send a request that was meant to be sent at `meant`, in the event loop's time."""
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
            self._loop.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self in self._loop.idle:
            self._loop.idle.remove(self)
        self._answered("closed")

    def _answered(self, status: str) -> None:
        if self._meant is not None:
            self._loop.answered(status, self._meant)
            self._meant = None


class Loop:
    """The schedule, the connections, and what came back."""

    def __init__(self, url: str, request: bytes, warm_up_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._request = request
        self._warm_up_s = warm_up_s
        # The mutable state, changed on the event loop only.
        self.idle: list[Connection] = []
        self._counted_from = 0.0
        self._pending = 0
        self._sent = 0
        self._opened = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._late_ms: list[float] = []
        self._latencies_ms: dict[str, list[float]] = defaultdict(list)

    async def run(self, gaps: Iterator[float], seconds: float, patience_s: float) -> dict[str, Any]:
        """Send for so long, wait for what is left, and say what happened."""
        now = asyncio.get_running_loop().time
        meant = now()
        self._counted_from = meant + self._warm_up_s
        until = self._counted_from + seconds
        while meant < until:
            if (ahead := meant - now()) > 0:
                await asyncio.sleep(ahead)
            self._send(meant, now())
            meant += next(gaps)
        last = now() + patience_s
        while self._pending and now() < last:  # noqa: ASYNC110 - the load is what has to be light
            await asyncio.sleep(0.01)
        return self._said(seconds)

    def answered(self, status: str, meant: float) -> None:
        """Count an answer, or `closed` where the connection ended without one."""
        self._pending -= 1
        if meant >= self._counted_from:
            took = asyncio.get_running_loop().time() - meant
            self._latencies_ms[status].append(1000 * took)

    def _send(self, meant: float, now: float) -> None:
        self._pending += 1
        if meant >= self._counted_from:
            self._sent += 1
            self._late_ms.append(1000 * max(0.0, now - meant))
        if self.idle:
            self.idle.pop().send(self._request, meant)
            return
        task = asyncio.ensure_future(self._open(meant))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, meant: float) -> None:
        self._opened += 1
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError:
            self.answered("refused connection", meant)
            return
        made.send(self._request, meant)

    def _said(self, seconds: float) -> dict[str, Any]:
        answered = sum(map(len, self._latencies_ms.values()))
        return {
            "seconds": seconds,
            "sent": self._sent,
            "unanswered": self._sent - answered,
            "connections": self._opened,
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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    import uvloop

    request = post(arguments.url, arguments.media_type, arguments.body.read_bytes())
    gaps = (even if arguments.even else poisson)(arguments.rate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def run() -> dict[str, Any]:
            loop = Loop(arguments.url, request, arguments.warm_up)
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
    parser.add_argument("--even", action="store_true", help="evenly spaced arrivals in place of Poisson's")
    parser.add_argument("--core", type=int, help="the core to run on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
