"""Watched norms: what training left in the norms whose inputs are looked at, one channel behind the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Part = Literal["input", "content"]


@dataclass(frozen=True)
class WatchedNorm:
    """One norm: `[C]` vectors as they are stored."""

    name: str
    part: Part
    """`input`: in the first third of the network's norms; `content`: in the last."""
    mean: np.ndarray
    var: np.ndarray
    weight: np.ndarray
    """gamma; ones for a norm that has none."""
    eps: float
    rows: float
    """How many independent rows its statistics are worth."""
    has_pixels: bool = True
    """Whether a row has several values for each channel there, and so a variance of its own."""


def parts(count: int) -> dict[int, Part]:
    """Of so many norms in network order those that are watched: the first third and, apart, the last."""
    third = math.ceil(count / 3)
    last = range(max(third, count - third), count)
    return {**dict.fromkeys(range(third), "input"), **dict.fromkeys(last, "content")}


@dataclass(frozen=True)
class Watched:
    """All watched norms of a network; vectors are float64 `[C]` over the channels of all of them."""

    norms: tuple[WatchedNorm, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each norm's channels begin."""
        sizes = [len(norm.mean) for norm in self.norms]
        starts: np.ndarray = np.cumsum([0, *sizes[:-1]])
        return starts

    @cached_property
    def mean(self) -> np.ndarray:
        """The running means."""
        return _flat([norm.mean for norm in self.norms])

    @cached_property
    def var(self) -> np.ndarray:
        """The running variances."""
        return _flat([norm.var for norm in self.norms])

    @cached_property
    def eps(self) -> np.ndarray:
        """Each norm's own, for each of its channels."""
        return self.spread([norm.eps for norm in self.norms])

    @cached_property
    def rows(self) -> np.ndarray:
        """How many rows the statistics are worth, for each channel."""
        return self.spread([norm.rows for norm in self.norms])

    @cached_property
    def has_pixels(self) -> np.ndarray:
        """Whether a row alone has a variance there: bool `[C]`."""
        return self.spread([norm.has_pixels for norm in self.norms]).astype(bool)

    @cached_property
    def weight(self) -> np.ndarray:
        """gamma², so that channels that are switched off weigh nothing; 1 in all for each norm.

        A channel with statistics that no division survives weighs nothing either.
        """
        with np.errstate(all="ignore"):
            gain = _flat([norm.weight for norm in self.norms]) ** 2
            sound = np.isfinite(gain) & np.isfinite(self.mean) & np.isfinite(self.var)
            gain = np.where(sound & (self.var >= 0) & (self.var + self.eps > 0), gain, 0.0)
        whole = self.by_norm(gain)
        weight: np.ndarray = gain / self.spread(np.where(whole > 0, whole, 1.0))
        return weight

    def of(self, part: Part) -> np.ndarray:
        """Which norms are of a part: bool `[norms]`."""
        return np.array([norm.part == part for norm in self.norms], bool)

    def channels_of(self, part: Part) -> np.ndarray:
        """Which channels are: bool `[C]`."""
        return self.spread(self.of(part)).astype(bool)

    def by_norm(self, values: np.ndarray, channels: slice = slice(None)) -> np.ndarray:
        """The sums over each norm's channels, `[..., norms]`, of values `[..., C]` at these channels."""
        if channels == slice(None):
            whole: np.ndarray = np.add.reduceat(values, self.starts, axis=-1)
            return whole
        norms, starts = np.unique(self._norm_of[channels], return_index=True)
        sums = np.zeros((*values.shape[:-1], len(self.norms)))
        sums[..., norms] = np.add.reduceat(values, starts, axis=-1)
        return sums

    @cached_property
    def _norm_of(self) -> np.ndarray:
        """The number of the norm of each channel."""
        return self.spread(np.arange(len(self.norms))).astype(int)

    def spread(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """One value a norm, repeated for each of its channels."""
        repeated: np.ndarray = np.repeat(
            np.asarray(values, np.float64), [len(norm.mean) for norm in self.norms]
        )
        return repeated


def _flat(vectors: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([vector.astype(np.float64) for vector in vectors])
