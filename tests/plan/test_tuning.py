"""Tuning: each bucket gets the number of threads that is fastest for it, as measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from service.plan import tuning
from service.plan.tuning import candidates, fewest, tune

from .lowered import inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.plan.plan import Plan

ROW = inputs(3, 6, 6)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))


def slow_where(is_slow: Callable[[int, int], bool]) -> Plan:
    """A plan that is slow for some pairs of rows and threads."""
    plan = lowered(network(), ROW, max_batch=4)
    computed = plan._lowered

    def slowed(x: Tensor) -> Tensor:
        time.sleep(0.02 if is_slow(len(x), torch.get_num_threads()) else 0.001)
        answer: Tensor = computed(x)
        return answer

    plan._lowered = slowed  # type: ignore[assignment]  # a function in place of the graph
    return plan


@pytest.mark.parametrize(
    ("most", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])], ids=str
)
def test_powers_of_two_and_the_largest_number_are_tried(most: int, numbers: list[int]) -> None:
    assert candidates(most) == numbers


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 1.0, 2: 0.5, 4: 0.4}, 4),
        ({1: 1.03, 2: 1.02, 4: 1.0}, 1),
        ({1: 1.04, 2: 1.02, 4: 1.0}, 2),
        ({4: 1.0, 2: 1.0, 1: 2.0}, 2),
        ({1: 0.5, 2: 1.0}, 1),
    ],
    ids=str,
)
def test_of_numbers_within_three_percent_of_the_fastest_the_smallest_wins(
    seconds: dict[int, float], number: int
) -> None:
    assert fewest(seconds) == number


def test_each_bucket_gets_the_threads_that_it_is_fastest_with() -> None:
    plan = slow_where(lambda rows, threads: (threads == 1) == (rows > 1))
    assert list(tune(plan, ROW, 2, seconds=2).items()) == [(1, 1), (2, 2), (4, 2)]


def test_a_bucket_for_which_no_time_is_left_keeps_the_threads_that_it_had() -> None:
    plan = slow_where(lambda rows, threads: threads > 1)
    assert tune(plan, ROW, 3, seconds=0) == {1: 1, 2: 3, 4: 3}


def test_with_one_thread_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> dict[int, float]:
        raise AssertionError("it was measured")

    monkeypatch.setattr(tuning, "_medians", measured)
    assert tune(lowered(network(), ROW, max_batch=4), ROW, 1) == {1: 1, 2: 1, 4: 1}


def test_tuning_leaves_the_plan_and_the_number_of_threads_as_they_were() -> None:
    plan = lowered(network(), ROW, max_batch=2)
    tune(plan, ROW, 2, seconds=0.05)
    assert (plan.threads, torch.get_num_threads()) == ({}, 1)


def test_a_plan_for_cuda_is_not_tuned() -> None:
    plan = lowered(network(), ROW)
    plan.device = torch.device("cuda")
    assert tune(plan, ROW, 4) == {}


def test_a_tuned_plan_computes_each_batch_with_the_threads_of_its_bucket() -> None:
    net, plan = network(), lowered(network(), ROW, max_batch=4)
    seen: list[tuple[int, int]] = []
    computed = plan._lowered
    plan._lowered = lambda x: seen.append((len(x), torch.get_num_threads())) or computed(x)  # type: ignore[assignment,func-returns-value]
    plan.threads = {1: 1, 2: 3, 4: 2}
    rows = inputs(9, 3, 6, 6)
    with torch.no_grad():
        reference = net.double()(rows.double())
    for number in (1, 2, 3, 9):
        assert float((plan(rows[:number]) - reference[:number]).abs().max()) < 1e-5
    assert seen == [(1, 1), (2, 3), (3, 2), (4, 2), (4, 2), (1, 1)]
    torch.set_num_threads(1)
