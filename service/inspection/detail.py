"""The detail of one norm: all that is known of it, as JSON has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.inspection.equation import equation
from service.inspection.layer_stats import histogram, with_derived
from service.inspection.spreadsheet import exact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.inspection.layer_stats import LayerStats


def detail(stats: LayerStats, stored: Mapping[str, np.ndarray], channel: int) -> dict[str, Any]:
    """The norm's facts with its whole vectors, arrays `[C]`, histograms, and a channel's equation."""
    vectors = with_derived(stored, stats.eps)
    numbers = equation(vectors, stats.eps, channel)
    return {
        **stats.model_dump(),
        "equation": numbers and numbers.model_dump(),
        "vectors": {name: np.ascontiguousarray(exact(vector)) for name, vector in vectors.items()},
        "histograms": {name: histogram(vector).model_dump() for name, vector in vectors.items()},
    }
