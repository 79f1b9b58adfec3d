"""Layer statistics: what one norm knows, summarised for people; numpy only, never torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from service.inspection.flag import Flag

if TYPE_CHECKING:
    from collections.abc import Mapping

STORED = ("running_mean", "running_var", "weight", "bias")
DERIVED = ("scale", "shift")


class Summary(BaseModel):
    """Four numbers for a vector; null in JSON where a value is not finite."""

    model_config = ConfigDict(frozen=True)

    min: float
    max: float
    mean: float
    std: float


class Histogram(BaseModel):
    """Counts of the finite values between `edges` (one more than `counts`)."""

    model_config = ConfigDict(frozen=True)

    edges: list[float]
    counts: list[int]


class LayerStats(BaseModel):
    """One norm: its constructor's arguments, summaries of its vectors, and what folding made of it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    num_features: int
    eps: float
    momentum: float | None
    """None: the running statistics are the cumulative average, which counts its batches; or, where
    `num_batches_tracked` is None too, nobody says: a norm that is written out by hand has none."""
    affine: bool
    track_running_stats: bool
    num_batches_tracked: int | None
    running_mean: Summary | None
    running_var: Summary | None
    weight: Summary | None
    bias: Summary | None
    scale: Summary | None
    shift: Summary | None
    outcome: str | None = None
    """None: the network never calls this norm at inference."""
    partner: str | None = None
    reason: str | None = None
    """What became of it in words, or why it was kept."""
    activation: str | None = None
    """The elementwise function that alone reads its output, such as `relu`; null where none does."""
    folding_error: float | None = None
    """Folded, in the serving precision against float64, on a probe: the largest difference at the output of
    `folding_error_at`, over the largest value there. Null where it was not measured."""
    folding_error_at: str | None = None
    """This norm; or, where its output is gone from the folded network, the next one that is there; or
    `answer`, that of the network."""
    flags: list[Flag] = []
    """Health flags, the gravest first."""


def with_derived(vectors: Mapping[str, np.ndarray], eps: float) -> dict[str, np.ndarray]:
    """The stored vectors `[C]` and, in float64, what they amount to: `y = scale * x + shift`.

    `scale = weight / sqrt(running_var + eps)` and `shift = bias - running_mean * scale`; weight
    is 1 and bias 0 for a norm that has none. Without running statistics nothing is derived.
    """
    if "running_mean" not in vectors or "running_var" not in vectors:
        return dict(vectors)
    mean, var = vectors["running_mean"].astype(np.float64), vectors["running_var"].astype(np.float64)
    with np.errstate(all="ignore"):  # a broken checkpoint is shown as it is
        scale = np.asarray(vectors.get("weight", 1.0), np.float64) / np.sqrt(var + eps)
        shift = np.asarray(vectors.get("bias", 0.0), np.float64) - mean * scale
    return {**vectors, "scale": scale, "shift": shift}


def summary(vector: np.ndarray | None) -> Summary | None:
    """The summary of a vector, computed in float64."""
    if vector is None:
        return None
    values = vector.astype(np.float64)
    with np.errstate(all="ignore"):
        return Summary(
            min=float(values.min()),
            max=float(values.max()),
            mean=float(values.mean()),
            std=float(values.std()),
        )


def histogram(vector: np.ndarray, bins: int = 32) -> Histogram:
    """Equal-width counts of the finite values of a vector."""
    finite = vector[np.isfinite(vector)].astype(np.float64)
    try:
        counts, edges = np.histogram(finite, bins=bins)
    except (
        ValueError
    ):  # float64 has no room for so many edges between the values, or their distance overflows
        counts, edges = np.histogram(finite, _spread_edges(finite.min(), finite.max(), bins))
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def _spread_edges(low: float, high: float, bins: int) -> np.ndarray:
    """Edges around `low` and `high`, as far apart as float64 needs to tell them apart."""
    room = 2 * bins * np.spacing(max(abs(low), abs(high)))
    if not np.isfinite(high / 2 - low / 2 + room):
        room = 0.0
    middle, reach = low / 2 + high / 2, max(high / 2 - low / 2, room)
    steps: np.ndarray = np.linspace(-1.0, 1.0, bins + 1)
    edges: np.ndarray = middle + reach * steps
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges
