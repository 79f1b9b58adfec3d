"""The gallery: the images of a folder, however they lie in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from service.errors import InvalidConfiguration
from service.evaluation.pictures import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_MOST = 2000
_SUFFIXES = {".png", ".jpg", ".jpeg"}


def of(folder: Path) -> tuple[Picture, ...]:
    """The JPEGs and PNGs of a folder and of all folders in it, evenly spread where there are over 2,000.

    What begins with a dot is not looked at. Raises `InvalidConfiguration` where there is none, or a folder
    that cannot be read.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises where it may not look
        raise InvalidConfiguration(f"{folder.name!r} is not a folder of images")
    found = sorted(_images(folder))
    if not found:
        raise InvalidConfiguration(f"{folder.name!r} holds no JPEG or PNG")
    step = max(1.0, len(found) / AT_MOST)
    chosen = [found[int(number * step)] for number in range(min(len(found), AT_MOST))]
    return tuple(Picture(path, path.relative_to(folder).as_posix(), 0) for path in chosen)


def _images(folder: Path) -> Iterator[Path]:
    """Links to folders are not followed: they may go in circles."""
    for where, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(where, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in _SUFFIXES:
                yield path


def _refuse(error: OSError) -> NoReturn:
    name = Path(error.filename).name
    raise InvalidConfiguration(f"the folder {name!r} cannot be read: {error.strerror}")
