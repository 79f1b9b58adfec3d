"""Draw what `engine.py --json` wrote: how many times as fast as each contender foldserve is, per network.

python benchmarks/picture.py docs/engine.svg results.json [results.json ...]
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

# The same file for the same numbers, whenever it is drawn.
mpl.rcParams |= {"svg.hashsalt": "foldserve", "svg.fonttype": "none", "font.family": "sans-serif"}

Cells = dict[str, dict[str, list[float]]]


def main(picture: str, *results: str) -> None:
    """Write the picture."""
    cells: Cells = defaultdict(dict)
    for path in results:
        for row in json.loads(Path(path).read_text()):
            if row["contender"] != "foldserve" and row["foldserve_is"]:
                cells[row["contender"]][_label(row)] = row["foldserve_is"]
    labels = list(dict.fromkeys(label for rows in cells.values() for label in rows))
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(labels) + 1.2))
    for number, (contender, rows) in enumerate(cells.items()):
        _dots(axes, labels, rows, contender, (number - (len(cells) - 1) / 2) * 0.6 / len(cells))
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the contender foldserve is: median and quartiles of the rounds")
    axes.grid(axis="x", color="0.9")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(picture, bbox_inches="tight", metadata={"Date": None})


def _label(row: dict[str, Any]) -> str:
    cores = "1 core" if row["cores"] == 1 else f"{row['cores']} cores"
    return f"{row['model']}, batch {row['batch']}, {cores}"


def _dots(axes: Any, labels: list[str], rows: dict[str, list[float]], name: str, shift: float) -> None:
    """One contender's medians, with the quartiles as a line."""
    heights = [labels.index(label) + shift for label in rows]
    lows, middles, highs = zip(*rows.values(), strict=True)
    axes.plot(middles, heights, "o", markersize=5, label=name)
    axes.hlines(heights, lows, highs, color=axes.lines[-1].get_color(), linewidth=1.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
