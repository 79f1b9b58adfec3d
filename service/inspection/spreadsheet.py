"""Spreadsheets: norms, and the channels of one norm, as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from service.inspection.layer_stats import DERIVED, STORED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.inspection.layer_stats import LayerStats, Summary

_ARGUMENTS = (
    "name",
    "num_features",
    "eps",
    "momentum",
    "affine",
    "track_running_stats",
    "num_batches_tracked",
)
_SUMMARISED = (*STORED, *DERIVED)
_NUMBERS = ("min", "max", "mean", "std")
_FOLDED = ("outcome", "partner", "reason", "activation", "folding_error", "folding_error_at")


def of_layers(layers: Sequence[LayerStats]) -> str:
    """One line per norm; flags as `flag:level`, separated by spaces, and what there is not as nothing."""
    summaries = [f"{vector}_{number}" for vector in _SUMMARISED for number in _NUMBERS]
    return _written([*_ARGUMENTS, *summaries, *_FOLDED, "flags"], map(_line, layers))


def of_channels(vectors: Mapping[str, np.ndarray], channels: Iterable[int] | None = None) -> str:
    """One line per channel, or for those that are asked for, each number in its shortest digits."""
    columns = [exact(vector) for vector in vectors.values()]
    listed = range(len(columns[0]) if columns else 0) if channels is None else channels
    return _written(
        ["channel", *vectors],
        ([channel, *(str(column[channel]) for column in columns)] for channel in listed),
    )


def exact(vector: np.ndarray) -> np.ndarray:
    """A vector in a dtype whose shortest digits every reader understands."""
    return vector.astype(np.float32) if vector.dtype == np.float16 else vector


def _line(layer: LayerStats) -> list[Any]:
    arguments = [getattr(layer, name) for name in _ARGUMENTS]
    numbers = [number for name in _SUMMARISED for number in _numbers(getattr(layer, name))]
    flags = " ".join(f"{flag.flag}:{flag.level}" for flag in layer.flags)
    return [*arguments, *numbers, *(getattr(layer, name) for name in _FOLDED), flags]


def _numbers(summary: Summary | None) -> list[float | None]:
    return [None if summary is None else getattr(summary, name) for name in _NUMBERS]


def _written(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()
