"""Rows: what the watched norms saw of some, and what the network answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rows:
    """Rows whose inputs to the watched norms are known."""

    mean: np.ndarray
    """Of each row's pixels, `[N, C]`."""
    var: np.ndarray
    classes: np.ndarray
    """What the network answered, int `[N]`."""

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, chosen: slice | np.ndarray) -> Rows:
        return Rows(self.mean[chosen], self.var[chosen], self.classes[chosen])
