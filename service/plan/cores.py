"""Cores: how many this process can keep busy. Imports no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

from service.plan.cgroup import Group, groups, lines


def owned_cores(root: Path = Path("/")) -> int:
    """How many cores this process can keep busy: those it may run on, or its quota where that is less.

    A container with a quota of two cores on a machine of 64 may run on all of them, but not for long.
    `root` holds `proc` and `sys`.
    """
    quotas = map(_quota, groups("cpu", root))
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), *quotas, math.inf)))


def _quota(group: Group) -> float:
    """The cores' worth of time that a group may take; infinite without a limit."""
    if group.version == 2:
        words = " ".join(lines(group.folder / "cpu.max")).split()
    else:
        words = [*lines(group.folder / "cpu.cfs_quota_us"), *lines(group.folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not words[0].isdecimal():  # "max", -1, or no such file
        return math.inf
    return int(words[0]) / int(words[1])
