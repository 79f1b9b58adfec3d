"""A run belongs to a request until the last who holds it lets go; then its slots are back, once."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.arena import Slots
from service.engine.run import Run


class Watched:
    """A run of three of ten slots, and how often it was settled."""

    def __init__(self) -> None:
        self.slots = Slots(10)
        self.settled = 0
        self.slots.take(2)
        first = self.slots.take(3)
        assert first == 2
        self.run = Run(self.slots, first, 3, np.zeros((4, 1, 8, 8), "uint8"), np.zeros((4, 10), "float32"))
        self.run.on_settled = self._settle

    def _settle(self, _: object) -> None:
        self.settled += 1

    def __repr__(self) -> str:
        return f"{self.slots.taken - 2} taken, settled {self.settled} times"


def test_leaving_the_block_gives_the_slots_back_and_settles() -> None:
    watched = Watched()
    with watched.run as run:
        assert repr(watched) == "3 taken, settled 0 times"
        assert (len(run), run.first_slot) == (4, 2)
    assert repr(watched) == "0 taken, settled 1 times"
    assert watched.slots.take(8) == 2


def test_an_exception_gives_them_back_too() -> None:
    watched = Watched()
    with pytest.raises(ZeroDivisionError), watched.run:
        _ = 1 / 0
    assert repr(watched) == "0 taken, settled 1 times"


def test_the_last_who_holds_it_gives_it_back() -> None:
    watched = Watched()
    with watched.run:
        watched.run.hold()
        watched.run.hold()
    assert repr(watched) == "3 taken, settled 0 times"
    watched.run.release()
    assert repr(watched) == "3 taken, settled 0 times"
    watched.run.release()
    assert repr(watched) == "0 taken, settled 1 times"


def test_a_run_is_settled_once_though_it_is_held_on() -> None:
    watched = Watched()
    with watched.run:
        watched.run.settle()
        watched.run.settle()
        assert repr(watched) == "3 taken, settled 1 times"
    assert repr(watched) == "0 taken, settled 1 times"
