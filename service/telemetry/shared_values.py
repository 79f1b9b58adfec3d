"""Shared values: what several processes count, each in files of its own that all may read.

These are the files of prometheus_client's multi-process mode, with two changes that it leaves room for.
A file is named for the part that its process plays, not for its pid: the replacement of a dead process
counts on in the same file, so no number goes back and restarts leave no more files to read
(prometheus/client_python, issue 509). And to count is one write to mapped memory: the library's own
value takes 2 microseconds, and a request counts nine times.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

_MEMORY = Path("/dev/shm")  # noqa: S108 the folder made in it is ours alone


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A new folder for the files, for this user only, removed at the end with all that is in it.

    It lies in memory where the system has a place for that: to write to a mapped page of a disk can mean
    to wait for the disk.
    """
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="foldserve-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class SharedValues(Collector):
    """The values of one part of the service (`engine`, `worker-0`), and the sum over all parts.

    At most one living process may play a part, and it counts on one thread: a replacement starts when
    the one before it is dead.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self._folder = folder
        self._part = part
        # The mutable state: an open file for each type of metric.
        self._files: dict[str, MmapedDict] = {}
        weakref.finalize(self, _close, self._files)

    def place(
        self,
        metric_type: str,
        metric: str,
        name: str,
        labelnames: list[str],
        labelvalues: list[str],
        meaning: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> _SharedValue:
        """The place of one sample, with what its part has counted there before; a `ValueClass`."""
        metric_type += f"_{multiprocess_mode}" if metric_type == "gauge" else ""  # how parts become one
        key = mmap_key(metric, name, labelnames, labelvalues, meaning)
        file = self._files.get(metric_type) or self._open(metric_type)
        file.read_value(key)
        at = file._positions[key]
        # A file that grows is mapped anew. The view keeps the mapping of now, of the same memory.
        return _SharedValue(memoryview(file._m)[at : at + 8].cast("d"))

    def collect(self) -> Iterable[Metric]:
        """The families that any part has counted, by name, summed over all parts, dead ones too."""
        # A process that is killed as it starts may leave a file of no length, which nobody can read.
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        return sorted(MultiProcessCollector.merge(files), key=lambda family: family.name)

    def _open(self, metric_type: str) -> MmapedDict:
        file = MmapedDict(str(self._folder / f"{metric_type}_{self._part}.db"))
        self._files[metric_type] = file
        return file


class _SharedValue:
    """One number that outlives its process; what prometheus_client asks of a value."""

    def __init__(self, place: memoryview[float]) -> None:
        self._place = place

    def inc(self, amount: float) -> None:
        # Without a lock, which would cost as much again: a part counts on one thread.
        self._place[0] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002 - the library's
        self._place[0] = value

    def get(self) -> float:
        return float(self._place[0])

    def get_exemplar(self) -> None:
        return None


def _close(files: dict[str, MmapedDict]) -> None:
    # Not the mappings: a value may still be counted.
    for file in files.values():
        file._f.close()
