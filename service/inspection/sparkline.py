"""Spark lines: a histogram in a line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.inspection.layer_stats import histogram

if TYPE_CHECKING:
    import numpy as np

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"


def sparkline(vector: np.ndarray | None, bins: int, encoding: str = "utf-8") -> str:
    """The finite values of a vector in `bins` characters, from the smallest to the largest.

    The height is the count, relative to the fullest bin; only a bin of nothing is blank. Where the encoding
    has no blocks, it is ASCII.
    """
    if vector is None:
        return ""
    counts = histogram(vector, bins).counts
    most, marks = max(counts) or 1, _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    return "".join(marks[-(-count * (len(marks) - 1) // most)] for count in counts)
