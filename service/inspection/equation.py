"""The equation of a norm with the numbers of one channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


class Equation(BaseModel):
    """What a norm does to one channel, as it was trained and as one scale and shift."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    channel: int
    values: dict[str, float]
    """The numbers of the channel, from `running_mean` to `shift`; null where one is not finite."""
    normalised: str
    """`y = weight * (x - running_mean) / sqrt(running_var + eps) + bias`, to six digits."""
    folded: str
    """`y = scale * x + shift`, to six digits."""


def equation(vectors: Mapping[str, np.ndarray], eps: float, channel: int) -> Equation | None:
    """The equation of a channel, from the stored and the derived vectors `[C]`; None without statistics."""
    if "scale" not in vectors:
        return None
    values = {name: float(vector[channel]) for name, vector in vectors.items()}
    normal = f"(x {_signed(-values['running_mean'])}) / √({values['running_var']:.6g} + {eps:.6g})"
    weight = f"{values['weight']:.6g} · " if "weight" in values else ""
    bias = f" {_signed(values['bias'])}" if "bias" in values else ""
    return Equation(
        channel=channel,
        values=values,
        normalised=f"y = {weight}{normal}{bias}",
        folded=f"y = {values['scale']:.6g} · x {_signed(values['shift'])}",
    )


def _signed(value: float) -> str:
    """A summand with its sign before it."""
    return f"− {-value:.6g}" if value < 0 else f"+ {value:.6g}"
