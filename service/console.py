"""Consoles: where commands print, for a person or as JSON."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# A pipe has no width that a table should bow to.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)
_NAMED_AT_MOST = 20
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY


def print_json(content: object) -> None:
    """JSON, with null for what is not finite, and `?` in file names for what is no UTF-8.

    Arrays of numpy are lists in it.
    """
    written = orjson.dumps(_encodable(content), option=_OPTIONS).decode()
    out.print(written, soft_wrap=True, markup=False)


def _encodable(content: Any) -> Any:
    if isinstance(content, str):
        return content.encode(errors="replace").decode()
    if isinstance(content, dict):
        return {_encodable(key): _encodable(value) for key, value in content.items()}
    return [*map(_encodable, content)] if isinstance(content, list | tuple) else content


def plain(text: object) -> str:
    """Text that the console prints as it is, brackets and all."""
    return str(text).replace("[", r"\[")


def file_name(name: str) -> str:
    """A file's name as the console prints it: what moves a cursor or is no UTF-8 is written out."""
    return plain("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name))


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that goes at the end; it is told how much is done, and of how much, where that is known."""
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_not_read(found: Sequence[tuple[str, str]]) -> None:
    """Name the images that serving would refuse, each with the reason."""
    for image, reason in found[:_NAMED_AT_MOST]:
        out.print(f"Not read: {file_name(image)}: {plain(reason)}", soft_wrap=True)
    if len(found) > _NAMED_AT_MOST:
        out.print(f"Nor were {len(found) - _NAMED_AT_MOST} more; --json names them all.")
