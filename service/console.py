"""Consoles: where commands print, for a person or as JSON."""

from __future__ import annotations

import sys

import orjson
from rich.console import Console

# A pipe has no width that a table should bow to.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)


def print_json(content: object) -> None:
    """JSON, with null for what is not finite."""
    out.print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode(), soft_wrap=True, markup=False)


def plain(text: object) -> str:
    """Text that the console prints as it is, brackets and all."""
    return str(text).replace("[", r"\[")
