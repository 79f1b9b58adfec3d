"""The run: a stretch of the arena that belongs to one request, from its first byte to its answer's last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from service.engine.arena import Slots
    from service.engine.doorbell import Reply


class Run:
    """Write `inputs`, have them computed, read `outputs`; leaving the block lets go of it.

    Its slots are given back when both have let go: the request, and the engine that still computes it.
    """

    def __init__(self, slots: Slots, first: int, count: int, inputs: np.ndarray, outputs: np.ndarray) -> None:
        self.first_slot = first
        self.on_settled: Callable[[Reply | None], None] = _nothing
        """Called once, when nothing of the run waits for the engine any more: with its reply, if it came."""
        self.inputs = inputs
        """uint8 pixels or float32 network inputs, `[N, C, H, W]`."""
        self.outputs = outputs
        """float32 `[N, ...]`, once the job is answered."""
        self.slots = slots
        """Whose it is."""
        self._count = count
        self._holders = 1

    def hold(self) -> None:
        """Keep the slots until one more `release`."""
        self._holders += 1

    def release(self) -> None:
        """Let go; the last one gives the slots back."""
        self._holders -= 1
        if not self._holders:
            self.settle()
            self.slots.give(self.first_slot, self._count)

    def settle(self, reply: Reply | None = None) -> None:
        """The engine is done with it, or never heard of it."""
        settled, self.on_settled = self.on_settled, _nothing
        settled(reply)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __len__(self) -> int:
        return len(self.inputs)


def _nothing(_: Reply | None) -> None: ...
