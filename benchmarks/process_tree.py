"""A tree of processes as the kernel counts it: its CPU time and its memory. Linux only."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1 << 20


def pids(root: int) -> list[int]:
    """The process and all that descend from it and still live."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children[int(stat[1])].append(int(entry.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, with that of children that have ended."""
    ticks = (sum(map(int, stat[11:15])) for pid in pids(root) if (stat := _stat(pid)))
    return sum(ticks) / _TICKS


def busy_seconds(cores: Iterable[int]) -> float:
    """What the cores have spent on anybody's work, other guests of the machine included; no interrupts."""
    names = {f"cpu{core}" for core in cores}
    rows = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    # user, nice, system, idle, iowait, irq, softirq, steal
    return sum(sum(map(int, (*row[1:4], row[8]))) for row in rows if row[0] in names) / _TICKS


def pause(root: int) -> None:
    """Stop every process of the tree until `resume`."""
    for pid in pids(root):
        _signal(pid, signal.SIGSTOP)


def resume(root: int) -> None:
    """Let them go on."""
    for pid in pids(root):
        _signal(pid, signal.SIGCONT)


def resident_mib(root: int) -> float:
    """Memory of the tree in MiB; a page that n processes share counts 1/n for each."""
    return sum(map(_proportional, pids(root))) / _MIB


def settle(root: int, patience_s: float = 5.0) -> None:
    """Wait until the tree rests: what a window left unfinished must not run into the next one."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        before = cpu_seconds(root)
        time.sleep(0.1)
        if cpu_seconds(root) - before <= 0.02:
            return


def end(root: int, wait: float = 15.0) -> None:
    """SIGTERM to the root, and SIGKILL to what is left of the tree after `wait` seconds."""
    tree = pids(root)
    resume(root)
    _signal(root, signal.SIGTERM)
    until = time.monotonic() + wait
    while time.monotonic() < until and any(_lives(pid) for pid in tree):
        time.sleep(0.02)
    for pid in filter(_lives, tree):
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in ("Z", "X")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ...; empty where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)
