"""A real engine in a thread, with what it needs, and whatever stands in its plan's place for a test."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.engine import board as boards
from service.engine.board import Board
from service.engine.card import ModelKey
from service.engine.control import Control, Kind, Message
from service.engine.engine import Engine
from service.engine.selection import Selection
from service.settings import Settings
from service.store.model_store import ModelStore
from service.telemetry import Telemetry
from tests.engine.peer import HANG_S, Peer, hears

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from service.inspection.notices import Notices

SHIPPED = Path(__file__).parents[2] / "model_store"
DIGITS = ModelKey("digits", 1)


class House:
    """An engine, the supervisor's end of its control socket, and the board."""

    def __init__(self, folder: Path = SHIPPED, notices: Notices | None = None, **settings: Any) -> None:
        self.settings = Settings(**{"model_store": folder, "device": "cpu", "threads": 1, **settings})
        descriptor = boards.create(4)
        self.board = Board(descriptor)
        os.close(descriptor)
        self.telemetry = Telemetry()
        self.control, theirs = Control.pair()
        self._theirs = Control(theirs)
        selection = Selection(ModelStore(folder), self.settings)
        self.engine = Engine(selection, self.settings, self._theirs, self.board, self.telemetry, notices)
        self.said: list[Message] = []
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        try:
            self.engine.run()
        except Exception as failure:  # noqa: BLE001 - a test looks at it
            self.failure = failure
        finally:
            self._theirs.close()

    def start(self) -> House:
        """Wait until it is ready, or has ended; what it said stands in `said`."""
        self._thread.start()
        while (message := hears(self.control)) is not None:
            self.said.append(message)
            if message.kind is Kind.READY:
                break
        return self

    def peer(self, number: int = 0, **more: Any) -> Peer:
        """One more worker, with its link."""
        return Peer.linked(self.control, number, **more)

    def drain(self) -> None:
        """Tell it to end when all its peers have hung up."""
        self.control.send(Message(Kind.DRAIN))

    def stop(self) -> Exception | None:
        """Tell it to drain where no peer is left; how it ended."""
        self.drain()
        return self.ended()

    def discard(self) -> None:
        """Let go of one that was never started."""
        self._theirs.close()
        self.control.close()

    def ended(self) -> Exception | None:
        """How it ended, once it has."""
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()
        for message in self.said:
            for descriptor in message.descriptors:
                os.close(descriptor)
        self.said.clear()
        self.control.close()
        for link in self.engine._switchboard._jobs:
            link.close()  # as the end of the process does
        return self.failure

    def __repr__(self) -> str:
        return " ".join(message.kind.name for message in self.said)


class Plan:
    """Stands in a real plan's place: hangs until told to go, fails for poison, else asks it."""

    POISON = 13

    def __init__(self, real: Callable[[Tensor], Tensor]) -> None:
        self.real = real
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def __call__(self, rows: Tensor) -> Tensor:
        self.batches.append(len(rows))
        self.entered.release()
        assert self.go.wait(HANG_S)
        if (rows == self.POISON).flatten(1).all(1).any():
            raise RuntimeError("the device fell over")
        return self.real(rows)

    def wait_until_entered(self) -> None:
        assert self.entered.acquire(timeout=HANG_S)


def let_time_pass(deadline: float) -> None:
    """Until this moment of the monotonic clock."""
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)
