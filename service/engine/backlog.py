"""The backlog: what of one worker waits for the engine, and what must not wait as well."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.batching.admission import refusal
from service.engine.doorbell import Outcome
from service.errors import QueueFull

if TYPE_CHECKING:
    from service.batching.admission import Rate
    from service.batching.policy import Limits
    from service.engine.board import Board
    from service.engine.doorbell import Reply
    from service.engine.editions import Edition
    from service.engine.run import Run

_MOST_MOMENTS = 16
"""Rows of one worker of which moments are computed or wait for that; they come after all others."""


class Backlog:
    """Tells the board of the rows of the worker with this `number`; each counts until its run is settled."""

    def __init__(self, board: Board, number: int, limits: Limits) -> None:
        self._board = board
        self._own = board.workers[number]
        self._limits = limits
        self._moments = 0  # the mutable state, besides the board: rows of which moments are wanted

    def refuse(self, rows: int, rate: Rate, deadline: float) -> None:
        """Raise `QueueFull` or `InputTooLarge` where so many more rows would wait too long."""
        why = refusal(self._board.load(), rows, rate, deadline - time.monotonic(), self._limits)
        if why:
            raise why

    def refuse_moments(self, rows: int) -> None:
        """Raise `QueueFull` where the moments of others are to be computed first."""
        if self._moments and self._moments + rows > _MOST_MOMENTS:
            raise QueueFull(f"{self._moments} rows are looked at already", retry_after_s=1)

    def count_moments(self, run: Run, edition: Edition) -> None:
        """Not on the board: nobody's answer waits for them."""
        rows = len(run)
        edition.hold()
        self._moments += rows

        def settled(_: Reply | None) -> None:
            self._moments -= rows
            edition.release()

        run.on_settled = settled

    def count(self, run: Run, edition: Edition) -> None:
        """Tell the board of rows that wait, until they do no more; then learn how long they took."""
        own, rows, rate = self._own, len(run), edition.rate
        work_s = rows * rate.seconds_per_row
        edition.hold()
        own.rows += rows
        own.work_s += work_s

        def settled(reply: Reply | None) -> None:
            own.rows -= rows
            own.work_s = own.work_s - work_s if own.rows else 0.0  # rounding must not add up
            if reply and reply.outcome is Outcome.ANSWERED:  # be it too late for whoever asked
                rate.observe(rows, reply.batch_rows, reply.compute_s)
            edition.release()

        run.on_settled = settled
