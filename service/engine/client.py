"""The client: what a worker sees of the engine and of its models; no torch on this side of the line."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Literal

from service.batching.admission import whole_seconds
from service.engine.arena import Arena
from service.engine.backlog import Backlog
from service.engine.control import Kind, Message
from service.engine.editions import Editions
from service.engine.errands import Errands
from service.engine.line import Line
from service.engine.log_level import LogLevel
from service.errors import EngineFailed, NotReady, NotWatched, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.batching.job import Answer, Wanted
    from service.engine.board import Board
    from service.engine.card import ModelCard
    from service.engine.editions import Edition
    from service.engine.run import Run
    from service.settings import Settings

State = Literal["starting", "ready", "draining", "stopped"]


class EngineClient:
    """Reserves room for rows and has them computed; knows the engine's state.

    For one event loop. `number` is the worker's own on the board, which it tells what waits here; `tell`
    says something to the supervisor.
    """

    def __init__(
        self, settings: Settings, board: Board, number: int, tell: Callable[[Message], None]
    ) -> None:
        self.board = board
        self._hang_s = settings.hang_timeout_s
        self._own = board.workers[number]
        self._tell = tell
        self._backlog = Backlog(board, number, settings.limits)
        self.editions = Editions(tell)
        self.errands = Errands(tell)
        self.log_level = LogLevel(settings.log_level, tell)
        # The mutable state, besides theirs: what the supervisor has told so far.
        self.is_draining = False
        self._line: Line | None = None

    def hear(self, message: Message) -> None:
        """Take what the supervisor says of the engine."""
        match message.kind:
            case Kind.LINK:
                end, memory = message.descriptors
                self._replace_line(Line(socket.socket(fileno=end), Arena(memory)))
                os.close(memory)
            case Kind.CARD:
                self.editions.learn(message.number, message.descriptors[0])
            case Kind.READY:
                self.editions.complete()
            case Kind.LOST:
                self.editions.lose()
                self._replace_line(None)
            case Kind.DROP:
                self.editions.drop(message.number)
            case Kind.FENCE:
                self._tell(message)
            case Kind.SETTLED:
                self.errands.settle(message)
            case Kind.LEVEL:
                self.log_level.hear(message)
            case Kind.DRAIN:
                self.is_draining = True
            case _:
                raise ValueError(f"a worker is not told {message.kind.name}")

    @property
    def state(self) -> State:
        """What a person is told; `stopped` is an engine that hangs."""
        if self.is_draining:
            return "draining"
        if not self.editions.is_complete:
            return "starting"
        return "stopped" if self.board.engine.is_silent(self._hang_s) else "ready"

    @property
    def is_broken(self) -> bool:
        """Whether nothing more can come of the link: only a new process gets a new one."""
        return self._line is not None and self._line.is_broken

    def refuse_when_full(self, card: ModelCard, deadline: float) -> None:
        """Raise what `reserve` would raise for a single row, before a body is read in vain."""
        _, edition = self._serving(card)
        self._backlog.refuse(1, edition.rate, deadline)

    def reserve(
        self, card: ModelCard, rows: int, dtype: str, deadline: float, wanted: Wanted = "answers"
    ) -> Run:
        """Room for so many rows of `dtype` and their answers; `deadline` in seconds of the monotonic clock.

        Refused at once where they would wait too long: raises `NotReady`, `QueueFull`, `InputTooLarge`; and
        `NotWatched` where moments are wanted of a version that has none.
        """
        line, edition = self._serving(card)
        self._backlog.refuse(rows, edition.rate, deadline)
        if wanted == "moments":
            self._backlog.refuse_moments(rows)
        shape = card.facts.shape_of(wanted)
        if shape is None:
            raise NotWatched(f"no norm of {card.key} is watched")
        run = line.take(rows, dtype, card.facts.manifest.input.shape, shape)
        if run is None:
            raise QueueFull(
                f"there is no room for {rows} rows now", retry_after_s=whole_seconds(self.board.load().work_s)
            )
        if wanted == "moments":
            self._backlog.count_moments(run, edition)
        else:
            self._backlog.count(run, edition)
        return run

    async def infer(
        self, card: ModelCard, run: Run, deadline: float, client: int = 0, wanted: Wanted = "answers"
    ) -> Answer:
        """The answers to the rows in `run`, which stay there until it is released.

        `client` tells one client's rows from others'; a number of 64 bits.

        Raises `DeadlinePassed` and `EngineFailed`. Being cancelled cancels the job: waiting rows then never
        reach the device.
        """
        line, edition = self._line, self.editions.of(card)
        if line is None or edition is None or run.slots is not line.slots:
            raise EngineFailed("the engine stopped", retry_after_s=1)
        return await line.infer(run, edition.number, deadline, client, wanted)

    def beat(self) -> None:
        """Tell the board that this worker's loop runs, and what it holds; call it several times a second."""
        self._own.beat()
        self._own.slots_taken = 0 if self._line is None else self._line.slots.taken

    def _serving(self, card: ModelCard) -> tuple[Line, Edition]:
        if not self.editions.is_complete or self._line is None or self._line.gone.is_set():
            raise NotReady("models are still being loaded", retry_after_s=1)
        edition = self.editions.of(card)
        if edition is None:
            raise NotReady("the model was loaded anew meanwhile", retry_after_s=1)
        return self._line, edition

    def _replace_line(self, line: Line | None) -> None:
        if self._line is not None:
            self._line.close()
        self._line = line
        self._own.slots = 0 if line is None else line.slots.count
        self.beat()
