"""Geometry: how a convolution's kernel lies on its input and moves, as numbers for each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from service.graph.arguments import arguments

if TYPE_CHECKING:
    from torch import Tensor, fx


@dataclass(frozen=True)
class Geometry:
    """One number for each spatial axis, of which a linear layer has none, and the groups."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    """Zeros before the first value."""
    trailing: list[int]
    """Zeros behind the last value: torch's `same` may add one more there."""
    dilation: list[int]
    groups: int
    output_padding: list[int] | None = None
    """Of a transposed convolution; None for any other."""

    @staticmethod
    def of(call: fx.Node) -> Geometry:
        """The geometry of a convolution or a linear call."""
        named = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **arguments(call)}
        kernel = list(named["weight"].meta["val"].shape[2:])
        dilation = _each(named["dilation"], len(kernel))
        reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        padding = _padding(named["padding"], reach)
        is_same = named["padding"] == "same"
        return Geometry(
            kernel=kernel,
            stride=_each(named["stride"], len(kernel)),
            padding=padding,
            trailing=[r - zeros for r, zeros in zip(reach, padding, strict=True)] if is_same else padding,
            dilation=dilation,
            groups=int(named["groups"]),
            output_padding=(
                _each(named["output_padding"], len(kernel)) if "output_padding" in named else None
            ),
        )

    @staticmethod
    def of_a_point(axes: int) -> Geometry:
        """That of a kernel of one tap, which moves value by value."""
        one, none = [1] * axes, [0] * axes
        return Geometry(kernel=one, stride=one, padding=none, trailing=none, dilation=one, groups=1)

    @property
    def is_symmetric(self) -> bool:
        """Whether there are as many zeros before the first value as behind the last."""
        return self.padding == self.trailing

    @property
    def pads(self) -> bool:
        """Whether there are any zeros around the input."""
        return any(self.padding) or any(self.trailing)

    def taps_of(self, other: Geometry) -> list[Tensor] | None:
        """Where along each axis of this kernel the taps of another lie; None where they are not all in it."""
        found = []
        for axis, step in enumerate(self.dilation):
            taps = torch.arange(other.kernel[axis]) * other.dilation[axis]
            taps += self.padding[axis] - other.padding[axis]
            is_inside = (taps % step == 0) & (taps >= 0) & (taps < step * self.kernel[axis])
            if not bool(is_inside.all()):
                return None
            found.append(taps // step)
        return found


def _padding(value: Any, reach: list[int]) -> list[int]:
    if value == "valid":
        return [0] * len(reach)
    return [zeros // 2 for zeros in reach] if value == "same" else _each(value, len(reach))


def _each(value: Any, axes: int) -> list[int]:
    """One number for each axis, where the call gives one for all or a list of one."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return listed * axes if len(listed) == 1 else listed
