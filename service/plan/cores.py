"""Cores: how many this process can keep busy. Imports no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path


def owned_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process can keep busy: those it may run on, or its quota where that is less.

    A container with a quota of two cores on a machine of 64 may run on all of them, but not for long.
    """
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """The cores' worth of time that the control group may take; infinite without a limit."""
    if (cgroup / "cpu.max").exists():  # version 2
        quota, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    try:  # version 1
        quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:
        return math.inf
    return math.inf if int(quota) < 0 else int(quota) / int(period)
