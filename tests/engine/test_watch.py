"""The watch tells who is silent, and is not misled by a pause of everybody."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from service.engine import board
from service.engine.watch import TICK_S, Silent, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_S = 2.0
START_S = 10.0


class Clock:
    """Begins now, and goes on only where it is told to."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def parts() -> Iterator[board.Board]:
    descriptor = board.create(2)
    yield board.Board(descriptor)
    os.close(descriptor)


def looks(watch: Watch, clock: Clock, seconds: float, *beating: board.Part) -> list[Silent]:
    """What it says at each tick, while these parts live."""
    seen = []
    for _ in range(round(seconds / TICK_S)):
        clock.now += TICK_S
        for part in beating:
            part.alive_at = clock.now
        seen.append(watch.look())
    return seen


NOBODY = Silent(engine=False, workers=[])


def test_process_that_was_never_up_is_not_silent(parts: board.Board) -> None:
    clock = Clock()
    assert set(map(repr, looks(Watch(parts, LONGEST_S, START_S, clock), clock, 60))) == {repr(NOBODY)}


def test_each_process_is_silent_when_it_was_not_heard_of_for_so_long(parts: board.Board) -> None:
    clock = Clock()
    watch = Watch(parts, LONGEST_S, START_S, clock)
    everybody = (parts.engine, *parts.workers)
    assert looks(watch, clock, 60, *everybody)[-1] == NOBODY
    assert looks(watch, clock, LONGEST_S, parts.engine, parts.workers[0])[-1] == NOBODY
    assert looks(watch, clock, TICK_S, parts.engine, parts.workers[0])[-1] == Silent(
        engine=False, workers=[1]
    )
    assert looks(watch, clock, LONGEST_S + TICK_S)[-1] == Silent(engine=True, workers=[0, 1])


def test_pause_of_everybody_gives_everybody_the_whole_time_again(parts: board.Board) -> None:
    clock = Clock()
    watch = Watch(parts, LONGEST_S, START_S, clock)
    looks(watch, clock, 1, parts.engine, *parts.workers)
    for pause_s in (LONGEST_S / 2 + 0.1, LONGEST_S, 100 * LONGEST_S):
        clock.now += pause_s
        assert watch.look() == NOBODY
        assert looks(watch, clock, LONGEST_S)[-1] == NOBODY
        assert looks(watch, clock, TICK_S)[-1] == Silent(engine=True, workers=[0, 1])
        looks(watch, clock, TICK_S, parts.engine, *parts.workers)


def test_short_delays_of_the_watch_itself_do_not_hide_a_silence(parts: board.Board) -> None:
    clock = Clock()
    watch = Watch(parts, LONGEST_S, START_S, clock)
    looks(watch, clock, TICK_S, parts.engine)
    for _ in range(3):
        clock.now += LONGEST_S / 2
        silent = watch.look()
    assert silent.engine


def test_process_that_does_not_come_up_is_silent_when_its_time_is_over(parts: board.Board) -> None:
    clock = Clock()
    watch = Watch(parts, LONGEST_S, START_S, clock)
    parts.engine.begun_at = parts.workers[1].begun_at = clock.now
    assert looks(watch, clock, START_S)[-1] == NOBODY
    assert looks(watch, clock, TICK_S)[-1] == Silent(engine=True, workers=[1])
    assert watch.said_of(parts.engine) == "has not come up in 10 s"
    parts.engine.begun_at = 0.0
    assert looks(watch, clock, 10 * START_S, parts.workers[1])[-1] == NOBODY
    assert watch.said_of(parts.workers[1]) == "has been silent for 2 s"


def test_pause_of_everybody_gives_those_who_start_the_whole_time_again(parts: board.Board) -> None:
    clock = Clock()
    watch = Watch(parts, LONGEST_S, START_S, clock)
    parts.workers[0].begun_at = clock.now
    clock.now += 100 * START_S
    assert watch.look() == NOBODY
    assert looks(watch, clock, START_S)[-1] == NOBODY
    assert looks(watch, clock, TICK_S)[-1] == Silent(engine=False, workers=[0])
