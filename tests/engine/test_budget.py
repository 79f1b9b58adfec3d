"""Budgets and rates: how much time is taken, and how many rows come."""

from __future__ import annotations

import time

import pytest

from service.engine.budget import Budget, Rate


def test_a_budget_is_a_share_of_the_time_that_has_passed() -> None:
    start = time.monotonic()
    budget, spent = Budget(0.01), 0.0
    for millisecond in range(100_000):
        if budget.has_some(start + millisecond / 1000):
            budget.spend(0.005)
            spent += 0.005
    assert spent == pytest.approx(1.0, rel=0.02)


def test_what_was_not_taken_is_saved_up_only_a_little() -> None:
    start = time.monotonic()
    budget = Budget(0.01)
    assert budget.has_some(start + 3600)
    budget.spend(0.051)
    assert not budget.has_some(start + 3600)
    assert budget.has_some(start + 3601)


def test_the_rate_is_that_of_the_rows_that_came_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rate = Rate()
    for _ in range(3000):
        now += 0.1
        rate.count(4)
    assert rate.per_second == pytest.approx(40, rel=0.02)
    for _ in range(2000):
        now += 0.1
        rate.count(1)
    assert rate.per_second == pytest.approx(10, rel=0.05)


def test_the_first_rows_are_not_taken_for_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    rate = Rate()
    rate.count(8)
    assert rate.per_second == 8
