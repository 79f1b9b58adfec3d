"""Pieces: parts of a long axis, so that arrays of them stay small however long it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 1 << 18
"""Numbers of one array, 2 MiB in float64."""


def pieces(length: int, across: int) -> Iterator[slice]:
    """Cut an axis so that a piece of it times `across` is at most 262,144 numbers, as far as that goes."""
    at_once = max(1, _MOST // max(across, 1))
    for first in range(0, length, at_once):
        yield slice(first, min(first + at_once, length))
