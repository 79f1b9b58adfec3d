"""One engine with the shipped digits model, for all tests that leave it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.house import House, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared() -> Iterator[House]:
    house = House(models="digits").start()
    yield house
    assert house.stop() is None


@pytest.fixture
def plan(shared: House) -> Iterator[Plan]:
    """The shared engine's plan for digits, replaced by a stand-in for one test."""
    real = shared.engine._repertoire._plans[0]
    stand_in = Plan(real)
    shared.engine._repertoire._plans[0] = stand_in  # type: ignore[assignment]  # what the engine needs of it
    yield stand_in
    stand_in.go.set()
    shared.engine._repertoire._plans[0] = real
