"""Backoff: a process that dies is started again, later each time, until it has died too often."""

from __future__ import annotations

import pytest

from service.engine.backoff import Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_every_death_doubles_the_pause_until_one_is_too_many() -> None:
    backoff = Backoff(4, Clock())
    assert [backoff.pause_s() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, None, None]
    assert repr(Backoff(4, Clock())) == "<Backoff 0 of 4 deaths>"


def test_no_pause_is_longer_than_half_a_minute() -> None:
    backoff = Backoff(1000, Clock())
    pauses = [backoff.pause_s() or 0.0 for _ in range(1000)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0


def test_deaths_are_forgotten_after_ten_minutes() -> None:
    clock = Clock()
    backoff = Backoff(2, clock)
    assert [backoff.pause_s(did_work=True), backoff.pause_s(did_work=True)] == [0.1, 0.2]
    clock.now += 599.9
    assert backoff.pause_s(did_work=True) is None
    clock.now += 0.2
    pause_s = backoff.pause_s(did_work=True)
    assert pause_s == 0.2, "one death lies within the last ten minutes, and this is the second"
    clock.now += 600
    assert backoff.pause_s(did_work=True) == 0.1


def test_deaths_before_any_work_are_never_forgotten() -> None:
    """As of a process that is killed for its memory, late in its loading."""
    clock = Clock()
    backoff, pauses = Backoff(3, clock), []
    for did_work in (False, False, True, False, False, False, False):
        pauses.append(backoff.pause_s(did_work=did_work))
        clock.now += 3600
    assert pauses == [0.1, 0.2, 0.1, 0.1, 0.2, 0.4, None]


@pytest.mark.parametrize("deaths", range(1, 4))
def test_where_none_is_allowed_the_first_death_is_the_end(deaths: int) -> None:
    backoff = Backoff(0, Clock())
    assert [backoff.pause_s() for _ in range(deaths)] == [None] * deaths
