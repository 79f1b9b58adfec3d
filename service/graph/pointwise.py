"""Operations that a map per channel can change places with: activations with corners, and pools."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.affine import Affine

if TYPE_CHECKING:
    from service.graph.constants import Constants

aten = torch.ops.aten

_ADAPTIVE: set[Any] = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
}
_AVERAGES: dict[Any, int] = {
    aten.avg_pool1d.default: 1,
    aten.avg_pool2d.default: 2,
    aten.avg_pool3d.default: 3,
}
_MAXIMA: dict[Any, int] = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
}
_RESIZES: dict[Any, int] = {
    aten.upsample_nearest1d.vec: 1,
    aten.upsample_nearest2d.vec: 2,
    aten.upsample_nearest3d.vec: 3,
    aten.upsample_bilinear2d.vec: 2,
    aten.upsample_bicubic2d.vec: 2,
    aten.upsample_linear1d.vec: 1,
    aten.upsample_trilinear3d.vec: 3,
    aten._upsample_bilinear2d_aa.vec: 2,
    aten._upsample_bicubic2d_aa.vec: 2,
}


_DEAD = 1e-30


@dataclass(frozen=True)
class Clamp:
    """`max(low, min(high, x))` per channel: what ReLU and its kin are."""

    low: Tensor
    high: Tensor

    @staticmethod
    def at(node: fx.Node, constants: Constants) -> Clamp | None:
        """The clamp that `node` is, or None; bounds are float64 and broadcast against the value."""
        arguments = [*node.args[1:], None, None][:2]
        if node.target is aten.relu.default:
            return _clamp(0.0, math.inf, node)
        if node.target is aten.relu6.default:
            return _clamp(0.0, 6.0, node)
        if node.target is aten.hardtanh.default:
            low, high = (
                bound if bound is not None else default
                for bound, default in zip(arguments, (-1.0, 1.0), strict=True)
            )
            return _clamp(low, high, node)
        if node.target in (aten.clamp.default, aten.clamp_min.default) and not node.kwargs:
            return _clamp(arguments[0], arguments[1], node)
        if node.target is aten.clamp.Tensor:
            bounds: list[Any] = [node.kwargs.get("min"), node.kwargs.get("max")]
            if len(node.args) == 1 and all(bound is None or bound in constants for bound in bounds):
                values = [None if bound is None else constants.value(bound) for bound in bounds]
                return _clamp(values[0], values[1], node)
        return None

    def after(self, affine: Affine) -> Clamp:
        """The clamp c' with `affine(c(x)) = c'(affine(x))`: its bounds are the bounds' images."""
        ends = [
            torch.where(affine.scale == 0, affine.shift, affine.scale * end + affine.shift)
            for end in (self.low, self.high)
        ]
        return Clamp(torch.minimum(*ends), torch.maximum(*ends))

    def finite(self) -> tuple[Tensor, Tensor]:
        """The bounds, 0 where there is none."""
        return (
            torch.where(self.low == -math.inf, 0.0, self.low),
            torch.where(self.high == math.inf, 0.0, self.high),
        )

    def equals(self, other: Clamp) -> bool:
        """Whether both have the same bounds everywhere."""
        return bool((self.low == other.low).all()) and bool((self.high == other.high).all())

    def before(self, affine: Affine) -> tuple[Clamp, Affine]:
        """The clamp c' and the map a' with `c(affine(x)) = a'(c'(x))`.

        The bounds are rounded to float32 first and the shift follows from them, so that what is
        clamped ends exactly on the bound.
        """
        dead = affine.scale.abs() < _DEAD  # its bounds would be infinite in float32
        scale = torch.where(dead, 1.0, affine.scale)
        ends = [(end - affine.shift) / scale for end in (self.low, self.high)]
        low, high = (end.float().double() for end in (torch.minimum(*ends), torch.maximum(*ends)))
        is_rising = scale > 0
        bound, image = torch.where(is_rising, low, high), self.low
        moved = torch.where(bound.isfinite() & image.isfinite(), image - scale * bound, affine.shift)
        level = torch.maximum(torch.minimum(affine.shift, self.high), self.low)
        infinite = torch.full_like(low, math.inf)
        clamp = Clamp(torch.where(dead, -infinite, low), torch.where(dead, infinite, high))
        return clamp, Affine(torch.where(dead, 0.0, affine.scale), torch.where(dead, level, moved))


def _clamp(low: Any, high: Any, node: fx.Node) -> Clamp:
    shape = [1] * node.meta["val"].dim()

    def bound(value: Any, absent: float) -> Tensor:
        value = absent if value is None else value
        tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        return tensor.double() if tensor.dim() else tensor.double().reshape(shape)

    top = bound(high, math.inf)
    return Clamp(torch.minimum(bound(low, -math.inf), top), top)  # the upper bound wins, as in torch


def refuses(node: fx.Node, affine: Affine) -> str | None:
    """Why `affine`, a map of the input, cannot change places with a pool or a resize; None where it can."""
    spatial = _spatial(node) or []
    if affine.axes & {axis % _input_rank(node) for axis in spatial}:
        return "it changes along the axes that are pooled"
    if node.target in _MAXIMA and not affine.is_increasing:
        return "a negative scale turns the maximum of the pool into a minimum"
    if node.target in _AVERAGES and _counts_padding(node) and affine.has_shift:
        return "the pool averages over padded zeros, which the shift would change"
    return None


def is_pool(node: fx.Node) -> bool:
    """Whether `node` is an operation that `refuses` knows."""
    return _spatial(node) is not None


def through_mean(node: fx.Node, affine: Affine, *, backward: bool) -> Affine:
    """The map on the other side of a mean that drops axes; of other pools, the same map."""
    if node.target is not aten.mean.dim or (len(node.args) > 2 and node.args[2]):
        return affine
    axes = sorted(_pooled_by_mean(node))
    scale, shift = affine.scale, affine.shift
    for axis in axes if backward else reversed(axes):
        scale, shift = (t.unsqueeze(axis) if backward else t.squeeze(axis) for t in (scale, shift))
    return Affine(scale, shift)


def _input_rank(node: fx.Node) -> int:
    source: Any = node.args[0]
    return int(source.meta["val"].dim())


def _spatial(node: fx.Node) -> list[int] | None:
    """The axes over which `node` mixes values, counted from the end; None where it is none of ours."""
    if node.target is aten.mean.dim and node.args[1]:
        axes = _pooled_by_mean(node)
        return None if 0 in axes else axes
    if node.target in _ADAPTIVE:
        return list(range(2, _input_rank(node)))
    count = _AVERAGES.get(node.target) or _MAXIMA.get(node.target) or _RESIZES.get(node.target)
    return None if count is None else list(range(-count, 0))


def _pooled_by_mean(node: fx.Node) -> list[int]:
    axes: Any = node.args[1]
    return [int(axis) % _input_rank(node) for axis in axes]


def _counts_padding(node: fx.Node) -> bool:
    arguments = [*node.args[3:], *[None] * 4][:4]
    padding, _, count_include_pad, divisor = arguments
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    includes = True if count_include_pad is None else bool(count_include_pad)
    return (padded and includes) or divisor is not None
