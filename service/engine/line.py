"""The line: a worker's end of what joins it to the engine, a socket and an arena."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from typing import TYPE_CHECKING

from service.batching.job import Answer
from service.engine.arena import Slots, row_bytes, slots_for
from service.engine.doorbell import DTYPES, Cancel, MalformedRecord, Outcome, Replies, Ring
from service.engine.run import Run
from service.errors import EngineFailed, InputTooLarge

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from service.batching.job import Wanted
    from service.engine.arena import Arena
    from service.engine.doorbell import Reply

log = logging.getLogger("foldserve")

_READ_BYTES = 1 << 18


class Line:
    """Hands out runs of its arena, rings for them, and settles them when the engine replies.

    For one event loop. `gone` is set when the engine hangs up; whoever still waits then gets `EngineFailed`.
    """

    is_broken = False
    """Whether the engine said what makes no sense, and was hung up on."""

    def __init__(self, end: socket.socket, arena: Arena) -> None:
        self.slots = Slots(arena.slots)
        self.gone = asyncio.Event()
        end.setblocking(False)
        self._end = end
        self._arena = arena
        self._loop = asyncio.get_running_loop()
        self._replies = Replies()
        self._tickets = itertools.count()
        # The mutable state besides: who waits for a reply, and what could not be sent yet.
        self._waiting: dict[int, tuple[Run, asyncio.Future[Reply], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._fires = math.inf
        self._unsent = bytearray()
        self._loop.add_reader(end, self._hear)

    def take(self, rows: int, dtype: str, row: Sequence[int], answer: Sequence[int]) -> Run | None:
        """A run for rows of shape `row` and float32 answers of shape `answer`; None where none is free.

        Raises `InputTooLarge` where there could never be one.
        """
        behind = slots_for(rows, row_bytes(row, dtype))
        count = behind + slots_for(rows, row_bytes(answer, "float32"))
        if count > self.slots.count:
            raise InputTooLarge(
                f"{rows} rows need {count} slots of memory, of which there are {self.slots.count}"
            )
        first = self.slots.take(count)
        if first is None:
            return None
        inputs = self._arena.array(first, [rows, *row], dtype)
        outputs = self._arena.array(first + behind, [rows, *answer], "float32")
        return Run(self.slots, first, count, inputs, outputs)

    async def infer(
        self, run: Run, model: int, deadline: float, client: int = 0, wanted: Wanted = "answers"
    ) -> Answer:
        """Have a run computed by the model of this number; `deadline` is in seconds of the monotonic clock.

        `client` tells one client's rows from others'.

        Raises `DeadlinePassed`, `EngineFailed`. Being cancelled cancels the job.
        """
        if self.gone.is_set():
            raise EngineFailed("the engine stopped", retry_after_s=1)
        ticket = next(self._tickets)
        replied: asyncio.Future[Reply] = self._loop.create_future()
        run.hold()  # until the reply, even where nobody waits for it any more
        self._waiting[ticket] = run, replied, deadline
        if deadline < self._fires:
            self._arm(deadline)
        dtype = DTYPES.index(run.inputs.dtype.name)
        now, first = time.monotonic(), run.first_slot
        self._send(Ring(ticket, model, dtype, first, len(run), now, deadline, client, wanted).packed())
        try:
            reply = await replied
        finally:
            if ticket in self._waiting:
                self._send(Cancel(ticket).packed())
        if reply.outcome is not Outcome.ANSWERED:
            raise reply.outcome.error()
        return Answer(run.outputs, reply.queue_s, reply.compute_s, reply.batch_rows)

    def close(self) -> None:
        """Hang up; whoever still waits gets `EngineFailed`."""
        if self.gone.is_set():
            return
        self._loop.remove_reader(self._end)
        self._loop.remove_writer(self._end)
        self._end.close()
        self.gone.set()
        if self._timer:
            self._timer.cancel()
            self._timer = None  # it refers to this line, and so to the arena
        for run, replied, _ in self._waiting.values():
            run.settle()
            run.release()
            if not replied.done():
                replied.set_exception(EngineFailed("the engine stopped", retry_after_s=1))
        self._waiting.clear()

    def _arm(self, deadline: float) -> None:
        """Look at `deadline` for whoever is late by then: one timer for all, since most never fire."""
        if self._timer:
            self._timer.cancel()
        self._fires = deadline
        self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.0), self._end_late)

    def _end_late(self) -> None:
        self._timer, self._fires = None, math.inf
        now = time.monotonic()
        for _, replied, deadline in self._waiting.values():
            if deadline <= now and not replied.done():
                replied.set_exception(Outcome.LATE.error())
        left = [deadline for _, replied, deadline in self._waiting.values() if not replied.done()]
        if left:
            self._arm(min(left))

    def _send(self, record: bytes) -> None:
        """Send with the loop's next turn, together with what others say until then."""
        if self.gone.is_set():
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += record

    def _flush(self) -> None:
        if self.gone.is_set():
            return
        try:
            del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.close()
            return
        if self._unsent:
            self._loop.add_writer(self._end, self._flush)
        else:
            self._loop.remove_writer(self._end)

    def _hear(self) -> None:
        try:
            received = self._end.recv(_READ_BYTES)
            for reply in self._replies.records(received):
                self._take(reply)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        except MalformedRecord as malformed:
            log.error("the engine is hung up on: %s", str(malformed))  # noqa: TRY400 - no bug of this process
            self.is_broken, received = True, b""
        if not received:
            self.close()

    def _take(self, reply: Reply) -> None:
        if reply.ticket not in self._waiting:
            raise MalformedRecord(f"a reply to ticket {reply.ticket}, which nobody has")
        run, replied, _ = self._waiting.pop(reply.ticket)
        run.settle(reply)
        run.release()
        if not replied.done():
            replied.set_result(reply)
