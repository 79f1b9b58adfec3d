"""The client: what the web side sees of the engine; no torch on this side of the seam."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Literal

from service.batching.job import Answer, Job, ModelKey
from service.engine import card as cards
from service.engine.protocol import Message, ModelLoaded, Ready, Stopped
from service.errors import (
    DeadlinePassed,
    FoldserveError,
    InputTooLarge,
    NotReady,
    UnknownModel,
    UnknownVersion,
)

if TYPE_CHECKING:
    import numpy as np

    from service.batching.batcher import Batcher
    from service.engine.card import ModelCard

State = Literal["starting", "ready", "draining", "stopped"]


class EngineClient:
    """Submits jobs and awaits their rows; knows the model cards and the engine's state.

    Made and used on one event loop; only `hear` may be called from other threads.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._loop = asyncio.get_running_loop()
        # The mutable state, changed on the loop only: what the engine has announced so far.
        self.state: State = "starting"
        self.failure: Exception | None = None
        self.stopped = asyncio.Event()
        self.is_ready = asyncio.Event()
        self._cards: dict[ModelKey, ModelCard] = {}

    def hear(self, message: Message) -> None:
        """Take an announcement of the engine, from any thread."""
        self._loop.call_soon_threadsafe(self._take, message)

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
        if not self.is_ready.is_set():
            raise NotReady("models are still being loaded", retry_after_s=1)
        if not versions:
            raise UnknownModel(f"no model {model!r} is served")
        raise UnknownVersion(f"model {model!r} is not served in version {chosen}")

    async def infer(self, key: ModelKey, rows: np.ndarray, timeout_s: float) -> Answer:
        """The answers to `rows`, uint8 pixels or float32 network inputs `[N, C, H, W]`.

        Raises `NotReady`, `QueueFull`, `InputTooLarge`, `DeadlinePassed` and
        `EngineFailed`. Being cancelled cancels the job: waiting rows then never reach the device.
        """
        self._refuse_unless_serving()
        if len(rows) > self._batcher.limits.max_waiting_rows:
            raise InputTooLarge(f"{len(rows)} rows; the queue holds {self._batcher.limits.max_waiting_rows}")
        now = time.monotonic()
        reply: asyncio.Future[Answer] = self._loop.create_future()
        job = Job(key, rows, _Replier(self._loop, reply), arrived=now, deadline=now + timeout_s)
        self._batcher.submit(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise DeadlinePassed(f"no answer within {timeout_s * 1000:.0f} ms") from None
        finally:
            if reply.cancelled() or not reply.done():
                self._batcher.withdraw(job)

    @property
    def waiting_rows(self) -> int:
        """How many rows are queued."""
        return self._batcher.waiting_rows

    def drain(self) -> None:
        """Say that the service is going away; what still comes over open connections is answered."""
        if self.state in ("starting", "ready"):
            self.state = "draining"

    def _refuse_unless_serving(self) -> None:
        if self.state == "stopped":
            raise NotReady("the engine has stopped", retry_after_s=5)
        if not self.is_ready.is_set():
            raise NotReady("models are still being loaded", retry_after_s=1)

    def _take(self, message: Message) -> None:
        match message:
            case ModelLoaded(descriptor):
                card = cards.read(descriptor)
                os.close(descriptor)
                self._cards[card.key] = card
            case Ready():
                self.state = "ready" if self.state == "starting" else self.state
                self.is_ready.set()
            case Stopped(failure):
                self.state, self.failure = "stopped", failure
                self.stopped.set()


class _Replier:
    """Carries an answer from the engine's thread to the one who waits, if anybody still does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reply: asyncio.Future[Answer]) -> None:
        self._loop = loop
        self._reply = reply

    def __call__(self, outcome: Answer | FoldserveError) -> None:
        self._loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Answer | FoldserveError) -> None:
        if self._reply.done():
            return
        if isinstance(outcome, Answer):
            self._reply.set_result(outcome)
        else:
            self._reply.set_exception(outcome)
