"""The gallery: the images of a folder, however they lie in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import InvalidConfiguration
from service.evaluation.pictures import Picture

if TYPE_CHECKING:
    from pathlib import Path

AT_MOST = 2000
_SUFFIXES = {".png", ".jpg", ".jpeg"}


def of(folder: Path) -> tuple[Picture, ...]:
    """The JPEGs and PNGs of a folder and of all folders in it, evenly spread where there are over 2,000.

    What begins with a dot is not looked at. Raises `InvalidConfiguration` where there is none.
    """
    if not folder.is_dir():
        raise InvalidConfiguration(f"{folder.name!r} is not a folder of images")
    found = sorted(path for path in folder.rglob("*") if _is_shown(path, folder))
    if not found:
        raise InvalidConfiguration(f"{folder.name!r} holds no JPEG or PNG")
    step = max(1.0, len(found) / AT_MOST)
    chosen = [found[int(number * step)] for number in range(min(len(found), AT_MOST))]
    return tuple(Picture(path, path.relative_to(folder).as_posix(), 0) for path in chosen)


def _is_shown(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in parts)
