"""Memory: what this machine has left, held against what loading a version takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from service.errors import DoesNotFit
from service.plan.cgroup import Group, groups, lines
from service.store import content

if TYPE_CHECKING:
    from service.store.model_store import StoredModel

_PEAK = 4
"""Times the weights in float32, in the machine's memory: docs/benchmarks.md has the measurement."""
_MIB = 1024 * 1024


class _Files(NamedTuple):
    """Where one version of control groups keeps a group's numbers."""

    limit: str
    use: str
    reclaimable: str
    """In `memory.stat`: files in the page cache that nobody read lately; the kernel gives them up first."""


_FILES = {
    1: _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: _Files("memory.max", "memory.current", "inactive_file"),
}


def require_room(stored: StoredModel, free: float, on_device: float = math.inf) -> None:
    """Raise `DoesNotFit`, before the weights are read, where loading a version would not fit.

    `free` are the bytes that loading may take of the machine's memory, `on_device` those of a device
    with memory of its own, which holds the weights once.
    """
    size = _in_float32(stored.weights_path)
    for where, needed, left in (("", _PEAK * size, free), (" on the device", size, on_device)):
        if needed > left:
            raise DoesNotFit(
                f"{stored}: loading it takes about {_in_mib(needed)}{where}, {_in_mib(left)} are free; "
                f"its weights are {_in_mib(size)}"
            )


def _in_float32(path: Path) -> int:
    """Bytes of the weights in a file, by its header and its size; what is wrong with it its reader says."""
    try:
        size = content.size(path)
        with safe_open(path, "numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
            return max(size, 4 * sum(map(math.prod, shapes)))
    except OSError:
        return 0
    except SafetensorError:
        return size


def free_bytes(root: Path = Path("/")) -> float:
    """What this process may still take of the machine's memory; infinite where nothing says.

    The least of what the kernel calls available and of what is left to the process's control group and
    those that it is in. `root` holds `proc` and `sys`.
    """
    return min(_available(root), *map(_left, groups("memory", root)), math.inf)


def _available(root: Path) -> float:
    kibibytes = _numbers(root / "proc/meminfo").get("MemAvailable:", math.inf)
    return kibibytes * 1024


def _left(group: Group) -> float:
    files = _FILES[group.version]
    limit, use = ("".join(lines(group.folder / name)) for name in (files.limit, files.use))
    if not (limit.isdecimal() and use.isdecimal()):  # "max", or no such file
        return math.inf
    reclaimable = _numbers(group.folder / "memory.stat").get(files.reclaimable, 0)
    return max(0, int(limit) - int(use) + reclaimable)


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    return {words[0]: int(words[1]) for words in map(str.split, lines(path))}


def _in_mib(size: float) -> str:
    return f"{size / _MIB:,.1f} MiB"
