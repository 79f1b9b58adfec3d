"""The last window: what was judged last of one version, channel by channel, as a file that others read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from service.inspection.watched import Watched
    from service.inspection.window import Judgement

VECTORS = ("mean", "var", "delta", "lambda", "z", "reference_mean", "reference_var")


@dataclass(frozen=True)
class LayerChannels:
    """One watched norm in it: float32 `[C]` vectors by their names in `VECTORS`."""

    judged_at: float
    """In seconds since the epoch."""
    n: int
    n_eff: float
    vectors: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class LastWindow:
    """Of all watched norms; two are the same only as objects."""

    watched: Watched
    judged: Judgement
    judged_at: float
    n: int
    n_eff: float

    def dump(self) -> bytes:
        """A safetensors file: the vectors over the channels of all norms, and where each norm's begin."""
        shift = self.judged.shift
        live, reference = self.judged.live, self.judged.reference
        vectors = (live.mean, live.var, shift.delta, shift.log_ratio, shift.z, reference.mean, reference.var)
        with np.errstate(over="ignore"):  # what is as far as numbers go
            found = {name: part.astype(np.float32) for name, part in zip(VECTORS, vectors, strict=True)}
        starts = self.watched.starts.tolist()
        ends = [*starts[1:], len(self.watched.mean)]
        names = [norm.name for norm in self.watched.norms]
        said = {
            "norms": dict(zip(names, zip(starts, ends, strict=True), strict=True)),
            "window": {"judged_at": self.judged_at, "n": self.n, "n_eff": self.n_eff},
        }
        return save(found, metadata={name: json.dumps(value) for name, value in said.items()})


def read_layer(file: Path, name: str) -> LayerChannels | None:
    """One norm of the window in a file; None where there is no such norm, or no file."""
    try:
        opened: Any = safe_open(file, framework="numpy")
    except FileNotFoundError:
        return None
    with opened as window:
        said = {key: json.loads(value) for key, value in window.metadata().items()}
        if name not in said["norms"]:
            return None
        channels = slice(*said["norms"][name])
        vectors = {vector: window.get_slice(vector)[channels] for vector in VECTORS}
    return LayerChannels(**said["window"], vectors=vectors)
