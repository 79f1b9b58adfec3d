"""What stands as text in an exported program and torch's loader evaluates: sizes, trees, guards; no torch."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from service.errors import InvalidProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZES = re.compile(
    r"(?:Symbol\('[su][0-9]{1,9}'(?:, (?:positive|nonnegative|integer)=True){0,3}\)"
    r"|(?:Add|Mul|Pow|Integer|Mod|PythonMod|FloorDiv|CleanDiv|CeilToInt|FloorToInt|Max|Min)\("
    r"|[-+*/(), ]|[0-9]{1,18}+){1,200}+"
)
_PLAIN_TREES = {"builtins.tuple", "builtins.list", "builtins.dict", None}


def refuse_code(document: dict[str, Any]) -> None:
    """Raise `InvalidProgram` for what torch's loader would evaluate, although nothing here does.

    Any code of guards, an expression of sizes that is more than sums and products of symbols, a tree of
    inputs or outputs that is more than tuples, lists and dicts.
    """
    if document.get("guards_code"):
        raise InvalidProgram("it carries Python code (guards_code)")
    for key, value in walk(document):
        if key == "expr_str" and not (isinstance(value, str) and _SIZES.fullmatch(value)):
            raise InvalidProgram(f"{str(value)[:80]!r} is no expression of sizes")
        if key in {"in_spec", "out_spec"}:
            _check_tree(value)


def walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON document with its value, at any depth."""
    frontier = [document]
    while frontier:
        current = frontier.pop()
        if isinstance(current, dict):
            yield from current.items()
            frontier += current.values()
        elif isinstance(current, list):
            frontier += current


def _check_tree(text: Any) -> None:
    """A tree of inputs or outputs: tuples, lists and dicts with plain keys."""
    try:
        tree = json.loads(text, object_pairs_hook=without_repeats)
    except (TypeError, ValueError, RecursionError):
        raise InvalidProgram("a tree of inputs or outputs is not JSON") from None
    for key, value in walk(tree):
        plain = value in _PLAIN_TREES if isinstance(value, str | None) else False
        if key == "type" and not plain:
            raise InvalidProgram(f"inputs or outputs are of type {str(value)[:80]!r}")
        if key == "context" and not (value is None or _is_list_of_names(value)):
            raise InvalidProgram(f"inputs or outputs have the context {str(value)[:80]!r}")


def _is_list_of_names(text: Any) -> bool:
    try:
        names = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: a table whose keys differ; raises `ValueError` for one whose keys do not."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table
