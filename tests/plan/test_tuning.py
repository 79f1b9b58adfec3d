"""Tuning: a plan gets the number of threads that is fastest for it, as measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from service.plan.tuning import candidates, fewest, quickest

from .lowered import assert_exact, inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from service.plan.plan import Plan

ROW = inputs(3, 6, 6)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))


def plan() -> Plan:
    return lowered(network(), ROW, max_batch=4)


def slow_where(is_slow: Callable[[int, int], bool]) -> Callable[[], Plan]:
    """Makes plans that are slow for some pairs of rows and threads."""

    def make() -> Plan:
        made = plan()

        def slept(rows: Tensor) -> Tensor:
            time.sleep(0.03 if is_slow(len(rows), torch.get_num_threads()) else 0.001)
            return rows

        made._answer = slept
        return made

    return make


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


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("slow", [1, 2])
@pytest.mark.parametrize("at", [1, 4], ids=["one row", "a full batch"])
def test_a_number_that_is_slow_for_one_row_or_for_a_full_batch_is_not_taken(slow: int, at: int) -> None:
    chosen = quickest(slow_where(lambda rows, threads: (rows, threads) == (at, slow)), ROW, seconds=0.2)
    assert chosen.threads == 3 - slow


@pytest.mark.usefixtures("two_threads")
def test_a_plan_computes_with_the_threads_that_it_was_made_for() -> None:
    for_two = plan()
    torch.set_num_threads(1)
    for_one, net = plan(), network()
    for each, threads in ((for_two, 2), (for_one, 1), (for_two, 2)):
        assert_exact(each, net, inputs(3, 3, 6, 6))
        assert (each.threads, torch.get_num_threads()) == (threads, threads)
