"""Placement: how many workers there are, and which cores they and the engine run on."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.plan.cores import owned_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.settings import Settings

log = logging.getLogger("foldserve")

_CORES_PER_WORKER = 4
_MOST_WORKERS = 8
_DRIVER = Path("/dev/nvidiactl")
_LEAST_CORES = 3
"""With fewer, a core for the workers alone would cost the engine half of what it has."""


@dataclass(frozen=True)
class Placement:
    """Who runs where; None: wherever the whole service may."""

    workers: int
    worker_cores: list[int] | None = None
    engine_cores: list[int] | None = None


def place(settings: Settings) -> Placement:
    """What the settings say, or what suits the cores of this process.

    Which cores the workers get is drawn by lot: several services on one machine should not share one.
    """
    cores = sorted(os.sched_getaffinity(0))
    drawn = secrets.randbelow(len(cores))
    return split(settings, [*cores[drawn:], *cores[:drawn]], owned_cores())


def split(settings: Settings, cores: Sequence[int], owned: int) -> Placement:
    """The first of `cores` for the workers, the others for the engine, where they can be told apart.

    A quota of `owned` cores' worth of time is no set of cores that could be divided.
    """
    workers = settings.workers or min(max(1, owned // _CORES_PER_WORKER), _MOST_WORKERS)
    is_wanted = settings.split_cores == "always" or (settings.split_cores == "auto" and _has_gpu(settings))
    is_enough = len(cores) >= _LEAST_CORES and len(cores) - workers >= max(settings.threads, 1)
    if not is_wanted or owned < len(cores) or not is_enough:
        if settings.split_cores == "always":
            log.warning("workers and engine share all cores: %d of %d cannot be split", owned, len(cores))
        return Placement(workers)
    return Placement(workers, sorted(cores[:workers]), sorted(cores[workers:]))


def _has_gpu(settings: Settings) -> bool:
    """Whether the engine will compute on a GPU, as far as can be told without torch.

    Where it computes on the CPU, every core that it does not get costs more than workers on its cores do.
    """
    return settings.device.startswith("cuda") or (settings.device == "auto" and _DRIVER.exists())
