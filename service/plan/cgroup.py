"""Control groups: where the kernel keeps what this process may take of the machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Group(NamedTuple):
    """One of the groups that this process is in."""

    version: Literal[1, 2]
    folder: Path


def groups(controller: str, root: Path = Path("/")) -> Iterator[Group]:
    """The groups with a limit of `cpu` or `memory` for this process: its own and those around it.

    `root` holds `proc` and `sys`. A group of which a container does not see the folder is given all the same.
    """
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = PurePosixPath(path).relative_to("/")
        for group in (own, *own.parents):  # in a container often only the last is there
            yield Group(1 if controllers else 2, mount / group)


def lines(path: Path) -> list[str]:
    """Those of one of the kernel's files; none where it is missing."""
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
