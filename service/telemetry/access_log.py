"""The access log: a line for each request, written beside the event loop, which never waits for it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.telemetry.access_entry import Entry
    from service.telemetry.logs import Style
    from service.telemetry.metrics import Telemetry

log = logging.getLogger("foldserve")

_MOST_WAITING = 8192
_PERIOD_S = 0.05
# As much goes into a pipe as a whole, whoever else writes to it (POSIX, write).
_PIECE_BYTES = select.PIPE_BUF
_PATIENCE_S = 5.0


class AccessLog:
    """Takes entries on one thread, the event loop's, and writes their lines on another one.

    So many entries may wait; more are dropped, and counted. Lines go to `descriptor`, several in one write,
    each whole, so that the lines of several processes do not mix.
    """

    def __init__(
        self, style: Style, telemetry: Telemetry, descriptor: int = 1, most_waiting: int = _MOST_WAITING
    ) -> None:
        self._style = style
        self._telemetry = telemetry
        self._descriptor = descriptor
        self._most_waiting = most_waiting
        # The mutable state: what is to be written, whether that is all, and whether the last of it was.
        self._waiting: deque[Entry] = deque()
        self._ending = threading.Event()
        self._is_broken = False
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Have a line written soon, or drop it where too many wait."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append(entry)
        else:
            self._telemetry.access_line_dropped("full")

    def close(self) -> None:
        """Write what waits, and no more; given up where nobody takes it for some seconds."""
        self._ending.set()
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            log.error("the last %d lines of the access log were taken by nobody", len(self._waiting))

    def _run(self) -> None:
        while not self._ending.wait(_PERIOD_S):
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        piece: list[bytes] = []
        length = 0
        while self._waiting:
            line = self._waiting.popleft().line(self._style)
            if piece and length + len(line) > _PIECE_BYTES:
                self._write(piece)
                piece, length = [], 0
            piece.append(line)
            length += len(line)
        if piece:
            self._write(piece)

    def _write(self, lines: list[bytes]) -> None:
        """Write these lines; where that fails they are lost, and later ones are tried again."""
        left = b"".join(lines)
        try:
            while left:
                left = left[self._written(left) :]
        except OSError as failed:
            for _ in lines:
                self._telemetry.access_line_dropped("failed")
            if not self._is_broken:
                log.error("the access log cannot be written: %s", failed.strerror)  # noqa: TRY400 - no bug
            self._is_broken = True
        else:
            self._is_broken = False

    def _written(self, content: bytes) -> int:
        with contextlib.suppress(BlockingIOError):
            return os.write(self._descriptor, content)
        ready = select.poll()  # whoever shares the descriptor may have made it one that does not wait
        ready.register(self._descriptor, select.POLLOUT)
        ready.poll()
        return 0
