"""Processes pinned to their cores before their program is loaded, which end when this process ends."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_LAUNCH = (
    "import ctypes, os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); "
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


def command(cores: Iterable[int], program: list[str]) -> list[str]:
    """What to run so that `program` runs on `cores` and nowhere else."""
    return [sys.executable, "-c", _LAUNCH, ",".join(map(str, cores)), *program]
