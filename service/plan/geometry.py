"""Geometry: how a convolution's filter moves, as numbers for each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.plan.activations import arguments

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Geometry:
    """Stride, zeros on both sides and dilation, one number for each spatial axis, and the groups."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    output_padding: list[int] | None = None
    """Of a transposed convolution; None for any other."""

    @staticmethod
    def of(call: fx.Node) -> Geometry | None:
        """The geometry of a convolution; None where `same` adds one more zero on one side than the other."""
        named = arguments(call)
        kernel = list(named["weight"].meta["val"].shape[2:])
        dilation = _each(named["dilation"], len(kernel))
        reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        padding = _padding(named["padding"], reach)
        stride = _each(named["stride"], len(kernel))
        extra = _each(named["output_padding"], len(kernel)) if "output_padding" in named else None
        return None if padding is None else Geometry(stride, padding, dilation, int(named["groups"]), extra)


def _padding(value: Any, reach: list[int]) -> list[int] | None:
    if value == "valid":
        return [0] * len(reach)
    if value == "same":
        return None if any(zeros % 2 for zeros in reach) else [zeros // 2 for zeros in reach]
    return _each(value, len(reach))


def _each(value: Any, axes: int) -> list[int]:
    """One number for each axis, where the call gives one for all or a list of one."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return listed * axes if len(listed) == 1 else listed
