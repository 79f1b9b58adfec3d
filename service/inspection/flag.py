"""A health flag: one rule that a norm breaks, and what the rules must know beside the norm's own vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np

FlagName = Literal[
    "non_finite",
    "untrained",
    "constant_channel",
    "eps_dominates",
    "never_fires",
    "outlier_gain",
    "precision",
]
Level = Literal["error", "warning", "note"]


class Flag(BaseModel):
    """One rule that a norm breaks."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    flag: FlagName
    level: Level
    channels: list[int]
    """The first 16 of the channels that are concerned, counted from 0; none where nobody knows which."""
    count: int
    """How many channels are concerned."""
    value: float
    """The number that decided."""
    limit: float
    """What it was held against."""
    message: str
    """The same in words."""


@dataclass(frozen=True)
class Lost:
    """Folded weights that the serving precision cannot hold; each array is `[C]` and counts by channel."""

    layer: str
    """The layer, or the norm itself, that has the weights."""
    precision: str
    overflowing: np.ndarray
    vanishing: np.ndarray
    """Of values that are not 0, those that become 0."""
    nonzero: np.ndarray
    is_own: bool = True
    """Whether the channels are the norm's own, and not only the other layer's."""


@dataclass(frozen=True)
class Surroundings:
    """What only the graph around a norm can say."""

    activation: str | None = None
    """The only reader of its output, where that is an elementwise function: `relu`, `silu`, ..."""
    lost: Lost | None = None
