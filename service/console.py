"""Consoles: where commands print, for a person or as JSON."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from rich.console import Console

# A pipe has no width that a table should bow to.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)
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
