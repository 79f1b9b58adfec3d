"""Placement: how many workers there are, and which cores they and the engine run on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.plan.cores import owned_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.settings import Settings

_CORES_PER_WORKER = 4
_MOST_WORKERS = 8
_LEAST_CORES = 3
"""With fewer, a core for the workers alone would cost the engine half of what it has."""


@dataclass(frozen=True)
class Placement:
    """Who runs where; None: wherever the whole service may."""

    workers: int
    worker_cores: list[int] | None = None
    engine_cores: list[int] | None = None


def place(settings: Settings) -> Placement:
    """What the settings say, or what suits the cores of this process."""
    cores = sorted(os.sched_getaffinity(0))
    return _placed(settings.workers, cores, owned_cores(), is_split=settings.split_cores)


def _placed(workers: int, cores: Sequence[int], owned: int, *, is_split: bool) -> Placement:
    workers = workers or min(max(1, owned // _CORES_PER_WORKER), _MOST_WORKERS)
    # A quota of some cores' worth of time is no set of cores that could be divided.
    if not is_split or owned < len(cores) or len(cores) < max(_LEAST_CORES, workers + 1):
        return Placement(workers)
    return Placement(workers, list(cores[:workers]), list(cores[workers:]))
