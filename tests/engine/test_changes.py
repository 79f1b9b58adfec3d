"""The changes: the engine makes them, and whoever asked hears of the end when every worker serves so."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.change import Change, Settled
from service.engine.changes import Changes
from service.engine.control import Kind, Message
from service.errors import UnknownModel
from service.telemetry import Telemetry
from tests.telemetry.reading import value

LOAD = Change(action="load", model="digits")


class Worker:
    """A child as far as the changes know it: it is told, and it answers when the test says so."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.told: list[Message] = []

    def tell(self, message: Message) -> None:
        self.told.append(message)

    def says(self, kind: Kind, number: int, text: bytes = b"") -> None:
        self._changes.hear_worker(self, Message(kind, number, text))  # type: ignore[arg-type]

    def hears(self) -> list[str]:
        """What it was told since it was last asked."""
        said, self.told = [in_words(message) for message in self.told], []
        return said


def in_words(message: Message) -> str:
    if message.kind is not Kind.SETTLED:
        return f"{message.kind.name.lower()} {message.number}"
    settled = Settled.model_validate_json(message.text)
    return f"{message.number}: {settled.change.model} {settled.refusal or 'done'}"


class Supervisor:
    """Two workers and an engine."""

    def __init__(self) -> None:
        self.workers: Any = list[Worker]()
        self.engine_heard: list[str] = []
        self.has_engine = True
        self.telemetry = Telemetry()
        self.changes = Changes(lambda: self.workers, self._tell, self.telemetry)
        self.workers += [Worker(self.changes), Worker(self.changes)]

    def _tell(self, message: Message) -> bool:
        if self.has_engine:
            self.engine_heard.append(in_words(message))
        return self.has_engine

    def engine_says(self, kind: Kind, number: int, refused: UnknownModel | None = None) -> None:
        settled = Settled.refused(LOAD, refused) if refused else Settled(change=LOAD)
        text = settled.packed() if kind is Kind.SETTLED else b""
        self.changes.hear_engine(Message(kind, number, text))

    def heard(self) -> tuple[list[str], ...]:
        return tuple(worker.hears() for worker in self.workers)

    def loses(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.changes.strike_worker(worker)  # type: ignore[arg-type]

    def loses_its_engine(self) -> None:
        self.has_engine = False
        self.changes.strike_engine()


@pytest.fixture
def house() -> Supervisor:
    return Supervisor()


# Asked for and settled


def test_whoever_asked_hears_of_the_end_behind_everybody_s_fence(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 7, LOAD.packed())
    assert (house.engine_heard, house.heard()) == (["ask 1"], ([], []))
    house.engine_says(Kind.SETTLED, 1)
    assert house.heard() == (["fence 1"], ["fence 1"])
    second.says(Kind.FENCE, 1)
    assert house.heard() == ([], [])
    first.says(Kind.FENCE, 1)
    assert house.heard() == (["7: digits done"], ["0: digits done"])


def test_a_refusal_takes_the_same_way(house: Supervisor) -> None:
    first, second = house.workers
    second.says(Kind.ASK, 3, LOAD.packed())
    house.engine_says(Kind.SETTLED, 1, UnknownModel("no"))
    house.heard()
    first.says(Kind.FENCE, 1)
    second.says(Kind.FENCE, 1)
    assert house.heard() == (["0: digits UnknownModel"], ["3: digits UnknownModel"])


def test_the_numbers_of_two_askers_are_not_mixed_up(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    second.says(Kind.ASK, 1, LOAD.packed())
    house.changes.ask(LOAD)
    assert house.engine_heard == ["ask 1", "ask 2", "ask 3"]
    for ticket in (1, 2, 3):
        house.engine_says(Kind.SETTLED, ticket)
    house.heard()
    for ticket, told in ((2, ("0", "1")), (1, ("1", "0")), (3, ("0", "0"))):
        for worker in house.workers:
            worker.says(Kind.FENCE, ticket)
        assert house.heard() == tuple([f"{number}: digits done"] for number in told)


def test_nobody_hears_twice_of_one_end(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    house.engine_says(Kind.SETTLED, 1)
    for worker in (first, first, second, second, first):
        worker.says(Kind.FENCE, 1)
    house.engine_says(Kind.SETTLED, 1)
    house.loses_its_engine()
    house.changes.end()
    assert house.heard() == (["fence 1", "1: digits done"], ["fence 1", "0: digits done"])


def test_one_fence_twice_is_not_two(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    house.engine_says(Kind.SETTLED, 1)
    house.heard()
    second.says(Kind.FENCE, 1)
    second.says(Kind.FENCE, 1)
    second.says(Kind.FENCE, 9)
    assert house.heard() == ([], [])


def test_without_any_worker_a_change_comes_to_its_end_too(house: Supervisor) -> None:
    house.changes.ask(LOAD)
    for worker in house.workers.copy():
        house.loses(worker)
    house.engine_says(Kind.SETTLED, 1)
    house.engine_says(Kind.DROP, 0)
    assert house.engine_heard == ["ask 1", "retire 0"]


# What is dropped


def test_a_model_is_retired_when_no_worker_uses_it_any_more(house: Supervisor) -> None:
    first, second = house.workers
    house.engine_says(Kind.DROP, 4)
    assert house.heard() == (["drop 4"], ["drop 4"])
    first.says(Kind.IDLE, 4)
    first.says(Kind.IDLE, 4)
    first.says(Kind.IDLE, 5)
    assert house.engine_heard == []
    second.says(Kind.IDLE, 4)
    assert house.engine_heard == ["retire 4"]
    second.says(Kind.IDLE, 4)
    assert house.engine_heard == ["retire 4"]


def test_a_worker_that_came_after_the_drop_is_not_waited_for(house: Supervisor) -> None:
    first, second = house.workers
    house.engine_says(Kind.DROP, 4)
    house.workers.append(Worker(house.changes))
    first.says(Kind.IDLE, 4)
    second.says(Kind.IDLE, 4)
    assert house.engine_heard == ["retire 4"]


# Deaths and the end


def test_for_a_worker_that_died_nobody_waits(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    house.engine_says(Kind.DROP, 4)
    house.engine_says(Kind.SETTLED, 1)
    first.says(Kind.IDLE, 4)
    first.says(Kind.FENCE, 1)
    house.loses(second)
    assert house.engine_heard == ["ask 1", "retire 4"]
    assert first.hears() == ["drop 4", "fence 1", "1: digits done"]


def test_a_change_is_made_though_the_one_who_asked_died(house: Supervisor) -> None:
    first, _ = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    house.loses(first)
    house.workers.append(Worker(house.changes))
    house.engine_says(Kind.SETTLED, 1)
    for worker in house.workers:
        worker.says(Kind.FENCE, 1)
    assert house.heard() == (["fence 1", "0: digits done"], ["fence 1", "0: digits done"])


def test_what_a_lost_engine_was_asked_for_is_refused_and_what_it_dropped_is_forgotten(
    house: Supervisor,
) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    second.says(Kind.ASK, 1, LOAD.packed())
    house.engine_says(Kind.DROP, 0)
    house.engine_says(Kind.SETTLED, 1)
    house.heard()
    house.loses_its_engine()
    assert house.heard() == (
        ["1: digits EngineFailed", "0: digits EngineFailed"],
        ["0: digits EngineFailed", "1: digits EngineFailed"],
    )
    house.has_engine = True
    for worker in house.workers:
        worker.says(Kind.FENCE, 1)
        worker.says(Kind.IDLE, 0)
    assert (house.engine_heard, house.heard()) == (["ask 1", "ask 2"], ([], []))


def test_while_there_is_no_engine_a_change_is_refused_at_once(house: Supervisor) -> None:
    house.loses_its_engine()
    house.workers[0].says(Kind.ASK, 5, LOAD.packed())
    assert house.heard() == (["5: digits EngineFailed"], ["0: digits EngineFailed"])
    house.has_engine = True
    house.workers[0].says(Kind.ASK, 6, LOAD.packed())
    assert house.engine_heard == ["ask 2"]


def test_at_the_end_all_that_is_under_way_and_all_that_comes_is_refused(house: Supervisor) -> None:
    first, second = house.workers
    first.says(Kind.ASK, 1, LOAD.packed())
    house.changes.end()
    assert house.heard() == (["1: digits Draining"], ["0: digits Draining"])
    second.says(Kind.ASK, 1, LOAD.packed())
    assert house.heard() == (["0: digits Draining"], ["1: digits Draining"])
    house.engine_says(Kind.SETTLED, 1)
    assert (house.engine_heard, house.heard()) == (["ask 1"], ([], []))


def test_what_was_dropped_is_retired_though_the_end_has_begun(house: Supervisor) -> None:
    house.changes.end()
    house.engine_says(Kind.DROP, 2)
    for worker in house.workers:
        worker.says(Kind.IDLE, 2)
    assert house.engine_heard == ["retire 2"]


def test_what_a_change_is_refused_for_is_raised_as_it_was() -> None:
    error = Settled.model_validate_json(Settled.refused(LOAD, UnknownModel("none")).packed()).error()
    assert isinstance(error, UnknownModel)
    assert str(error) == "none"
    assert Settled(change=LOAD).error() is None


# What is counted


def test_a_change_is_counted_by_what_became_of_it(house: Supervisor) -> None:
    def counted(outcome: str, model: str = "digits") -> float:
        labels = {"model": model, "kind": "load", "outcome": outcome}
        return value(house.telemetry, "foldserve_model_changes_total", **labels)

    house.workers.clear()
    house.changes.ask(LOAD)
    assert counted("ok") == 0
    house.engine_says(Kind.SETTLED, 1)
    assert counted("ok") == 1
    house.changes.ask(LOAD)
    house.loses_its_engine()
    assert (counted("ok"), counted("engine-failed")) == (1, 1)


def test_names_that_nobody_knows_make_no_series_of_their_own(house: Supervisor) -> None:
    house.workers.clear()
    house.changes.ask(LOAD)
    house.engine_says(Kind.SETTLED, 1, UnknownModel("there is no such model"))
    labels = {"kind": "load", "outcome": "unknown-model"}
    assert value(house.telemetry, "foldserve_model_changes_total", model="", **labels) == 1
