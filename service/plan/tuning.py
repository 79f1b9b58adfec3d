"""Tuning: how many threads compute a plan fastest, measured on the spot."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

import torch

from service.plan.device import use_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from service.plan.plan import Plan

SECONDS = 1.0
_LEAST_ROUNDS = 3
_TIE = 1.03


def quickest(make: Callable[[], Plan], row: Tensor, seconds: float = SECONDS) -> Plan:
    """The fastest of the plans that `make` gives for each number of threads up to torch's.

    A single row and a full bucket of copies of `row`, `[C, H, W]`, count alike; each takes about half of so
    many `seconds`. A plan is packed for its threads, so all of them are in memory until one is chosen.
    """
    most = torch.get_num_threads()
    plans = {number: _made(make, number) for number in candidates(most)}
    use_threads(most)
    batches = (row.unsqueeze(0).repeat(rows, *[1] * row.dim()) for rows in (1, plans[most].max_batch))
    medians = [_medians(plans, batch, seconds / 2) for batch in batches]
    return plans[fewest({number: math.prod(each[number] for each in medians) ** 0.5 for number in plans})]


def candidates(most: int) -> list[int]:
    """The numbers that are tried: the powers of two below `most`, and itself."""
    return sorted({*(1 << exponent for exponent in range(most.bit_length())), most})


def fewest(seconds: Mapping[int, float]) -> int:
    """The smallest number of threads that is within 3 % of the fastest."""
    return min(number for number, each in seconds.items() if each <= _TIE * min(seconds.values()))


def _made(make: Callable[[], Plan], threads: int) -> Plan:
    use_threads(threads)
    return make()


def _medians(plans: Mapping[int, Plan], rows: Tensor, seconds: float) -> dict[int, float]:
    """The median time that each plan takes for `rows`, in turns."""
    times: dict[int, list[float]] = {number: [] for number in plans}
    ended = time.perf_counter() + seconds
    while _rounds(list(times.values())) < _LEAST_ROUNDS or time.perf_counter() < ended:
        for number, plan in plans.items():
            plan(rows)  # the first call behind another number of threads is no measure
            started = time.perf_counter()
            plan(rows)
            times[number].append(time.perf_counter() - started)
    return {number: statistics.median(each) for number, each in times.items()}


def _rounds(times: Sequence[Sequence[float]]) -> int:
    return min(map(len, times))
