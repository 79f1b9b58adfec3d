"""A norm under examination: its numbers in float64, and what the rules of the health flags ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.inspection.flag import Surroundings
    from service.inspection.thresholds import Thresholds


@dataclass(frozen=True)
class ExaminedNorm:
    """The vectors of a norm in float64 `[C]`, and what the rules ask of them."""

    mean: np.ndarray | None
    var: np.ndarray | None
    weight: np.ndarray | None
    bias: np.ndarray
    eps: float
    around: Surroundings
    limits: Thresholds

    @staticmethod
    def of(
        vectors: Mapping[str, np.ndarray], eps: float, around: Surroundings, limits: Thresholds
    ) -> ExaminedNorm:
        known = {name: vector.astype(np.float64) for name, vector in vectors.items()}
        zeros = np.zeros(len(next(iter(known.values()))))
        return ExaminedNorm(
            known.get("running_mean"),
            known.get("running_var"),
            known.get("weight"),
            known.get("bias", zeros),
            eps,
            around,
            limits,
        )

    @cached_property
    def is_sound(self) -> np.ndarray:
        """Whether a channel's numbers are numbers; no other rule looks at one whose are not."""
        sound: np.ndarray = np.isfinite(self.bias)
        for vector in (self.mean, self.var, self.weight):
            sound = sound if vector is None else sound & np.isfinite(vector)
        if self.var is not None:
            sound = sound & (self.var >= 0) & (self.var + self.eps > 0)
        return sound

    @cached_property
    def size(self) -> np.ndarray:
        """The absolute weight, 1 where there is none; 0 in a channel that is not sound."""
        size = np.ones(len(self.bias)) if self.weight is None else np.abs(self.weight)
        return np.where(self.is_sound, size, 0.0)

    @cached_property
    def gain_ratio(self) -> np.ndarray:
        """Each gain over the layer's median gain; 0 where there is none, or the median is 0."""
        if self.var is None:
            return np.zeros(len(self.bias))
        gain = self.size / np.sqrt(np.where(self.is_sound, self.var + self.eps, 1.0))
        return over(gain, self.median(gain))

    def median(self, vector: np.ndarray) -> float:
        """The median over the channels that are sound; 0 where none is."""
        return float(np.median(vector[self.is_sound])) if self.is_sound.any() else 0.0


def over(vector: np.ndarray, median: float) -> np.ndarray:
    """The vector over its median; all 0 where that is 0."""
    return vector / median if median else np.zeros(len(vector))
