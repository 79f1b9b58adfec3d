"""The client: what a worker sees of the engine and of its models; no torch on this side of the line."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from service.batching.admission import Rate, refusal, whole_seconds
from service.engine import card as cards
from service.engine.arena import Arena
from service.engine.card import ModelKey
from service.engine.control import Kind, Message
from service.engine.doorbell import Outcome
from service.engine.errands import Errands
from service.engine.line import Line
from service.engine.log_level import LogLevel
from service.errors import EngineFailed, NotReady, NotWatched, QueueFull, UnknownModel, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.batching.job import Answer, Wanted
    from service.engine.board import Board
    from service.engine.card import ModelCard
    from service.engine.doorbell import Reply
    from service.engine.run import Run
    from service.settings import Settings

State = Literal["starting", "ready", "draining", "stopped"]

_RETRY_S = 1
_MOST_MOMENTS = 16
"""Rows of one worker of which moments are computed or wait for that; they come after all others."""


@dataclass(eq=False)
class _Edition:
    """A version as it was loaded once: its number, its rate, and how many requests and jobs use it."""

    card: ModelCard
    number: int
    rate: Rate
    uses: int = 0
    is_dropped: bool = False
    former: list[ModelCard] = field(default_factory=list)
    """Its cards before this one, which requests may still bear that came then."""


class EngineClient:
    """Reserves room for rows and has them computed; knows the model cards and the engine's state.

    For one event loop. `number` is the worker's own on the board, which it tells what waits here; `tell`
    says something to the supervisor.
    """

    def __init__(
        self, settings: Settings, board: Board, number: int, tell: Callable[[Message], None]
    ) -> None:
        self.board = board
        self.limits = settings.limits
        self._hang_s = settings.hang_timeout_s
        self._own = board.workers[number]
        self._tell = tell
        self.errands = Errands(tell)
        self.log_level = LogLevel(settings.log_level, tell)
        # The mutable state: what the supervisor has told so far.
        self.is_ready = False
        self.is_draining = False
        self._line: Line | None = None
        self._cards: dict[ModelKey, ModelCard] = {}
        self._editions: dict[ModelCard, _Edition] = {}
        self._moments = 0  # rows of which moments are wanted

    def hear(self, message: Message) -> None:
        """Take what the supervisor says of the engine."""
        match message.kind:
            case Kind.LINK:
                end, memory = message.descriptors
                self._replace_line(Line(socket.socket(fileno=end), Arena(memory)))
                os.close(memory)
            case Kind.CARD:
                self._learn(message.number, message.descriptors[0])
            case Kind.READY:
                # What an engine before this one had loaded, and this one has not, is served no more.
                self._cards = {key: card for key, card in self._cards.items() if card in self._editions}
                self.is_ready = True
            case Kind.LOST:
                self.is_ready = False
                self._editions.clear()  # the next engine loads anew
                self._replace_line(None)
            case Kind.DROP:
                self._drop(message.number)
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
        if not self.is_ready:
            return "starting"
        return "stopped" if self.board.engine.is_silent(self._hang_s) else "ready"

    @property
    def is_broken(self) -> bool:
        """Whether nothing more can come of the link: only a new process gets a new one."""
        return self._line is not None and self._line.is_broken

    def cards(self) -> list[ModelCard]:
        """The cards of all loaded versions, by name and version."""
        return [self._cards[key] for key in sorted(self._cards)]

    def card(self, model: str, version: int | None = None) -> ModelCard:
        """The card of a version, the highest where none is named.

        Raises `NotReady` while models are being loaded, `UnknownModel` and `UnknownVersion`.
        """
        versions = [key.version for key in self._cards if key.model == model]
        chosen = max(versions, default=0) if version is None else version
        if chosen in versions:
            return self._cards[ModelKey(model, chosen)]
        if not self.is_ready:
            raise NotReady("models are still being loaded", retry_after_s=_RETRY_S)
        if not versions:
            raise UnknownModel(f"no model {model!r} is served")
        raise UnknownVersion(f"model {model!r} is not served in version {chosen}")

    @contextmanager
    def using(self, model: str, version: int | None = None) -> Iterator[ModelCard]:
        """The same for a request: until the block ends it is computed, even where others take its place."""
        card = self.card(model, version)
        edition = self._editions.get(card)
        if edition is None:  # of an engine that was lost; what is asked of it is refused
            yield card
            return
        edition.uses += 1
        try:
            yield card
        finally:
            self._use_less(edition)

    def refuse_when_full(self, card: ModelCard, deadline: float) -> None:
        """Raise what `reserve` would raise for a single row, before a body is read in vain."""
        _, edition = self._serving(card)
        self._refuse(edition, 1, deadline)

    def reserve(
        self, card: ModelCard, rows: int, dtype: str, deadline: float, wanted: Wanted = "answers"
    ) -> Run:
        """Room for so many rows of `dtype` and their answers; `deadline` in seconds of the monotonic clock.

        Refused at once where they would wait too long: raises `NotReady`, `QueueFull`, `InputTooLarge`; and
        `NotWatched` where moments are wanted of a version that has none.
        """
        line, edition = self._serving(card)
        self._refuse(edition, rows, deadline)
        if wanted == "moments":
            self._refuse_more_moments(rows)
        shape = card.facts.shape_of(wanted)
        if shape is None:
            raise NotWatched(f"no norm of {card.key} is watched")
        run = line.take(rows, dtype, card.facts.manifest.input.shape, shape)
        if run is None:
            raise QueueFull(
                f"there is no room for {rows} rows now", retry_after_s=whole_seconds(self.board.load().work_s)
            )
        if wanted == "moments":
            self._count_moments(run, edition)
        else:
            self._count(run, edition)
        return run

    async def infer(
        self, card: ModelCard, run: Run, deadline: float, client: int = 0, wanted: Wanted = "answers"
    ) -> Answer:
        """The answers to the rows in `run`, which stay there until it is released.

        `client` tells one client's rows from others'; a number of 64 bits.

        Raises `DeadlinePassed` and `EngineFailed`. Being cancelled cancels the job: waiting rows then never
        reach the device.
        """
        line, edition = self._line, self._editions.get(card)
        if line is None or edition is None or run.slots is not line.slots:
            raise EngineFailed("the engine stopped", retry_after_s=1)
        return await line.infer(run, edition.number, deadline, client, wanted)

    def beat(self) -> None:
        """Tell the board that this worker's loop runs, and what it holds; call it several times a second."""
        self._own.beat()
        self._own.slots_taken = 0 if self._line is None else self._line.slots.taken

    def _refuse(self, edition: _Edition, rows: int, deadline: float) -> None:
        timeout_s = deadline - time.monotonic()
        why = refusal(self.board.load(), rows, edition.rate, timeout_s, self.limits)
        if why:
            raise why

    def _serving(self, card: ModelCard) -> tuple[Line, _Edition]:
        if not self.is_ready or self._line is None or self._line.gone.is_set():
            raise NotReady("models are still being loaded", retry_after_s=_RETRY_S)
        if card not in self._editions:
            raise NotReady("the model was loaded anew meanwhile", retry_after_s=_RETRY_S)
        return self._line, self._editions[card]

    def _replace_line(self, line: Line | None) -> None:
        if self._line is not None:
            self._line.close()
        self._line = line
        self._own.slots = 0 if line is None else line.slots.count
        self.beat()

    def _learn(self, number: int, descriptor: int) -> None:
        card = cards.read(descriptor)
        os.close(descriptor)
        self._cards[card.key] = card
        edition = next((each for each in self._editions.values() if each.number == number), None)
        if edition is None:
            rate = Rate(card.facts.seconds_per_row, card.facts.max_batch)
            edition = _Edition(card, number, rate)
        else:  # the same network, of which something else is said
            edition.former.append(edition.card)
            edition.card = card
        self._editions[card] = edition

    def _drop(self, number: int) -> None:
        """Serve it no more; who uses it goes on until the end."""
        edition = next(each for each in self._editions.values() if each.number == number)
        if self._cards.get(edition.card.key) is edition.card:
            del self._cards[edition.card.key]
        edition.is_dropped = True
        edition.uses += 1
        self._use_less(edition)

    def _use_less(self, edition: _Edition) -> None:
        edition.uses -= 1
        if edition.uses:
            return
        for card in edition.former:
            self._editions.pop(card, None)
        edition.former.clear()
        if edition.is_dropped and self._editions.get(edition.card) is edition:
            del self._editions[edition.card]
            self._tell(Message(Kind.IDLE, edition.number))

    def _refuse_more_moments(self, rows: int) -> None:
        if self._moments and self._moments + rows > _MOST_MOMENTS:
            raise QueueFull(f"{self._moments} rows are looked at already", retry_after_s=_RETRY_S)

    def _count_moments(self, run: Run, edition: _Edition) -> None:
        """Not on the board: nobody's answer waits for them."""
        rows = len(run)
        edition.uses += 1
        self._moments += rows

        def settled(_: Reply | None) -> None:
            self._moments -= rows
            self._use_less(edition)

        run.on_settled = settled

    def _count(self, run: Run, edition: _Edition) -> None:
        """Tell the board of rows that wait, until they do no more; then learn how long they took."""
        own, rows, rate = self._own, len(run), edition.rate
        work_s = rows * rate.seconds_per_row
        edition.uses += 1
        own.rows += rows
        own.work_s += work_s

        def settled(reply: Reply | None) -> None:
            own.rows -= rows
            own.work_s = own.work_s - work_s if own.rows else 0.0  # rounding must not add up
            if reply and reply.outcome is Outcome.ANSWERED:  # be it too late for whoever asked
                rate.observe(rows, reply.batch_rows, reply.compute_s)
            self._use_less(edition)

        run.on_settled = settled
