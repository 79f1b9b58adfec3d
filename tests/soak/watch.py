"""The watch: what the service's processes hold while they are used, read from /proc every second."""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 1 << 20


@dataclass(frozen=True)
class Growth:
    """Resident memory of one process in MiB: the medians of the first and of the last third."""

    pid: int
    name: str
    first: float
    last: float

    def is_within(self, share: float, mib: float) -> bool:
        """Whether it grew by no more than a share of itself and so many MiB."""
        return self.last <= self.first * (1 + share) + mib


class Watch:
    """Watches a tree of processes from a thread of its own, inside its `with` block."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        # Written by the thread, read when it has ended.
        self._mib: dict[int, list[float]] = defaultdict(list)
        self.names: dict[int, str] = {}

    def growth(self, left_out: int) -> list[Growth]:
        """Of every process that was there to the end.

        Its first `left_out` samples, which are a second apart, do not count.
        """
        most = max(map(len, self._mib.values()))
        return [
            Growth(
                pid,
                self.names[pid],
                statistics.median(seen[: max(1, len(seen) // 3)]),
                statistics.median(seen[-max(1, len(seen) // 3) :]),
            )
            for pid, every in self._mib.items()
            if len(every) >= most - 1 and (seen := every[left_out:])
        ]

    def _look(self) -> None:
        while not self._enough.wait(1):
            for pid in tree(self._root):
                if mib := resident_mib(pid):
                    self._mib[pid].append(mib)
                    self.names.setdefault(pid, _name(pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents():
        children[parent].append(pid)
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def resident_mib(pid: int) -> float:
    """Resident memory; 0 of a process that has ended."""
    text = _read(pid, "status")
    return next((int(line.split()[1]) * 1024 / _MIB for line in text if line.startswith("VmRSS:")), 0.0)


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(int(entry.name), "stat")):
            yield int(entry.name), int(stat[0].rpartition(")")[2].split()[1])


def _name(pid: int) -> str:
    return " ".join(_read(pid, "cmdline")).replace("\0", " ")[:80].strip()


def _read(pid: int, file: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
