"""Accepted rows, in a real engine: a baseline that is used at once, told to workers and found by a load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.engine import card as cards
from service.engine.change import Change
from service.engine.control import Kind, Message, close_all
from service.inspection.notices import Notices
from tests.e2e.stores import copied, with_manifest
from tests.engine.house import DIGITS
from tests.engine.peer import hears
from tests.engine.turning import Turning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.inspection.drift_report import DriftReport


class Accepting(Turning):
    """It serves the shipped model by the number 0, and its live rows are what a test makes up."""

    def __init__(self, folder: Path) -> None:
        self.file = copied(folder / "store") / "baseline.safetensors"
        (folder / "notices").mkdir()
        self.notices = Notices(folder / "notices")
        super().__init__(folder / "store", notices=self.notices)

    def see(self, rows: int, first: int = 0) -> np.ndarray:
        """Rows that were looked at; their means."""
        recent = self.house.engine._sampler._observers[0].recent
        random = np.random.default_rng(first)
        shape = rows, len(recent._watched.mean)
        mean, var = random.normal(size=shape), random.uniform(0.5, 1.5, shape)
        answers, digests = random.integers(0, 10, rows), [b"%d" % (first + n) for n in range(rows)]
        recent.add(mean.astype("f4"), var.astype("f4"), answers, digests)
        return mean

    def accept(self, model: str = "digits", version: int | None = 1) -> None:
        self.tickets += 1
        change = Change(action="accept", model=model, version=version)
        self.house.control.send(Message(Kind.ASK, self.tickets, change.packed()))

    def report(self) -> DriftReport:
        found = self.notices.read(*DIGITS)
        assert found is not None
        return found


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Accepting]:
    made = Accepting(tmp_path)
    yield made
    made.end()


def test_accepted_rows_are_the_baseline_from_then_on(engine: Accepting) -> None:
    mean = engine.see(300)
    engine.accept()
    told = hears(engine.house.control)
    assert told is not None
    assert (told.kind, told.number) == (Kind.CARD, 0), "the same network, by the same number"
    card = cards.read(told.descriptors[0])
    close_all(told)
    np.testing.assert_allclose(card.baseline["mean"], mean.mean(0), atol=1e-4)
    assert engine.told() == "1 is done"
    report = engine.report()
    assert (report.state, report.reference, report.baseline_rows) == ("warming", "baseline", 300)
    assert (report.windows, report.collected) == (0, 0)
    assert engine.file.exists()


def test_a_load_finds_it_and_by_itself_it_is_no_reason_for_one(engine: Accepting) -> None:
    engine.see(300)
    engine.accept()
    assert engine.all_told() == ["0 is digits/1", "1 is done"]
    assert engine.made() == [], "its own file is no change of the version"
    (engine.file.parent / "note").touch()
    assert engine.made() == ["1 is digits/1", "drop 0"]
    assert (engine.report().reference, engine.report().baseline_rows) == ("baseline", 300)


def test_the_next_baseline_takes_the_place_of_the_one_before(engine: Accepting) -> None:
    for number, rows in enumerate((300, 100), 1):
        engine.see(rows, 1000 * number)
        engine.accept(version=None)
        assert engine.all_told() == ["0 is digits/1", f"{number} is done"]
    assert engine.report().baseline_rows == 400


def test_too_few_rows_are_refused_with_both_numbers(engine: Accepting) -> None:
    engine.see(255)
    engine.accept()
    assert engine.all_told() == [
        "1 TooFewRows: 255 different rows were looked at since the state last changed; a baseline takes 256"
    ]
    assert engine.report().reference == "frozen"
    assert not engine.file.exists()


def test_what_is_not_served_or_looked_at_has_no_rows(engine: Accepting) -> None:
    engine.accept("nobody")
    engine.accept(version=9)
    assert engine.all_told() == ["1 UnknownModel: no model 'nobody' is served"]
    assert engine.all_told() == ["2 UnknownVersion: model 'digits' is not served in version 9"]
    engine.house.engine._sampler._observers.clear()
    engine.accept()
    assert engine.all_told() == ["3 NotWatched: nothing looks at the rows of digits/1"]


def test_rows_of_one_network_are_no_baseline_of_another_that_took_its_place_in_the_store(
    engine: Accepting,
) -> None:
    engine.see(300)
    with_manifest(engine.file.parent, lambda document: document["input"].update(mean=[0.1]))
    engine.accept()
    (refused,) = engine.all_told()
    assert refused.startswith("1 NotStored: digits/1 was replaced in the store")
    assert (engine.report().reference, engine.file.exists()) == ("frozen", False)


def test_where_it_cannot_be_kept_it_is_not_used(engine: Accepting) -> None:
    engine.see(300)
    engine.file.mkdir()
    engine.accept()
    (refused,) = engine.all_told()
    assert refused.startswith("1 NotStored: digits/1: baseline.safetensors cannot be written")
    assert engine.report().reference == "frozen"
