"""Pictures: the images of a folder that holds one folder for each class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeVar

from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

T = TypeVar("T")

_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class Picture:
    """One image file, and what its folder says that it shows."""

    path: Path
    name: str
    """`cat/1.png`: the file below the folder of all."""
    label: int
    """The index of its class among the network's answers."""


@dataclass(frozen=True)
class Pictures:
    """What a folder holds."""

    pictures: tuple[Picture, ...]
    """The classes in turn, so that any beginning is spread over them; the same order every time."""
    empty: tuple[str, ...]
    """The folders without a file."""


def of(folder: Path, labels: Sequence[str] | None, classes: int) -> Pictures:
    """The files of `folder`, whose folders are named for `labels` or for indices below `classes`.

    What begins with a dot is not looked at, and beside the folders there may be files that are no images.
    Raises `InvalidConfiguration`, which names what does not match.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises where it may not look
        raise InvalidConfiguration(f"{folder.name!r} is not a folder of images")
    entries = _visible(folder)
    stray = [entry.name for entry in entries if entry.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if stray:
        raise InvalidConfiguration(f"the image {stray[0]!r} is in no folder of a class")
    folders = [entry for entry in entries if entry.is_dir()]
    by_class = [_pictures(one, label) for one, label in _labelled(folders, labels, classes)]
    in_turn = zip_longest(*map(_spread, _spread(by_class)))
    return Pictures(
        pictures=tuple(filter(None, chain.from_iterable(in_turn))),
        empty=tuple(one.name for one, found in zip(folders, by_class, strict=True) if not found),
    )


def _labelled(folders: Sequence[Path], labels: Sequence[str] | None, classes: int) -> list[tuple[Path, int]]:
    """The folders with the classes that they stand for, each of which has one."""
    taken: dict[int, str] = {}
    found = []
    for folder in folders:
        label = _label(folder.name, labels, classes)
        if label in taken:
            raise InvalidConfiguration(
                f"the folders {taken[label]!r} and {folder.name!r} are both of class {label}"
            )
        taken[label] = folder.name
        found.append((folder, label))
    return found


def _label(name: str, labels: Sequence[str] | None, classes: int) -> int:
    matching = [index for index, label in enumerate(labels or ()) if label == name]
    if len(matching) > 1:
        indices = ", ".join(map(str, matching))
        raise InvalidConfiguration(
            f"the folder {name!r} has the label of several classes ({indices}): name it for an index"
        )
    if matching:
        return matching[0]
    if name.isascii() and name.isdecimal() and len(name) <= 18 and int(name) < classes:
        return int(name)
    raise InvalidConfiguration(
        f"the folder {name!r} is neither a label of the model nor an index from 0 to {classes - 1}"
    )


def _pictures(folder: Path, label: int) -> list[Picture]:
    entries = _visible(folder)
    inner = [entry.name for entry in entries if entry.is_dir()]
    if inner:
        raise InvalidConfiguration(
            f"the folder {folder.name!r} holds the folder {inner[0]!r} where only images are expected"
        )
    return [Picture(entry, f"{folder.name}/{entry.name}", label) for entry in entries]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InvalidConfiguration(f"the folder {folder.name!r} cannot be read: {error.strerror}") from error


def _spread(items: Sequence[T]) -> list[T]:
    """The items in an order of which any beginning is spread evenly over all of them."""
    order = sorted(range(len(items)), key=lambda number: number * _GOLDEN_RATIO % 1)
    return [items[number] for number in order]
