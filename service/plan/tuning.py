"""Tuning: how many threads compute each bucket of a plan fastest, measured on the spot."""

from __future__ import annotations

import statistics
import time
from functools import partial
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


def tune(plan: Plan, row: Tensor, most: int, seconds: float = SECONDS) -> dict[int, int]:
    """How many threads, up to `most`, each bucket is fastest with, smallest bucket first; empty on CUDA.

    `row` is `[C, H, W]`. All buckets together take about so many `seconds`; those that are left when the
    time is over keep `most`, as without tuning. The plan is not changed.
    """
    if plan.device.type != "cpu":
        return {}
    buckets, threads = plan.buckets()[::-1], dict[int, int]()
    if most == 1:
        return dict.fromkeys(buckets, 1)
    before, ended, needed = torch.get_num_threads(), time.perf_counter() + seconds, 0.0
    for bucket in buckets:
        if threads and time.perf_counter() + needed > ended:
            break
        run = partial(plan, row.unsqueeze(0).repeat(bucket, *[1] * row.dim()))
        medians = _medians(run, candidates(most), seconds / len(buckets))
        threads[bucket] = fewest(medians)
        needed = 2 * _LEAST_ROUNDS * sum(medians.values())  # the next bucket has twice the rows
    use_threads(before)
    return {bucket: threads.get(bucket, most) for bucket in buckets}


def candidates(most: int) -> list[int]:
    """The numbers that are tried: the powers of two below `most`, and itself."""
    return sorted({*(1 << exponent for exponent in range(most.bit_length())), most})


def fewest(seconds: Mapping[int, float]) -> int:
    """The smallest number of threads that is within 3 % of the fastest."""
    return min(number for number, each in seconds.items() if each <= _TIE * min(seconds.values()))


def _medians(run: Callable[[], object], numbers: Sequence[int], seconds: float) -> dict[int, float]:
    """The median time of a run with each number of threads, which take turns."""
    times: dict[int, list[float]] = {number: [] for number in numbers}
    ended = time.perf_counter() + seconds
    while len(times[numbers[-1]]) < _LEAST_ROUNDS or time.perf_counter() < ended:
        for number in numbers:
            use_threads(number)
            started = time.perf_counter()
            run()
            times[number].append(time.perf_counter() - started)
    return {number: statistics.median(each) for number, each in times.items()}
