"""Linear calls: convolutions and matrix products seen as a weight, a bias and an output axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.arguments import arguments
from service.graph.geometry import Geometry
from service.graph.names import module_name, owner
from service.graph.shapes import shape_of

if TYPE_CHECKING:
    from service.graph.constants import Constants

aten = torch.ops.aten

_CONVOLUTIONS: set[Any] = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
}
_TRANSPOSED: set[Any] = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}


@dataclass(frozen=True)
class LinearCall:
    """A call `op(x, weight, bias, ...)` whose weight and bias are constants (float64 here)."""

    node: fx.Node
    name: str
    """The module that makes the call, in the original network's names."""
    weight: Tensor
    bias: Tensor | None
    axis: int
    """The axis of the output that the weight's output channels lie on."""

    @staticmethod
    def is_one(node: fx.Node) -> bool:
        """Whether `node` is a convolution or a linear call at all."""
        if node.target is aten.linear.default:
            return _rank(_operands(node)[1]) == 2  # with a vector it has no output channels
        is_convolution = node.target in _CONVOLUTIONS or node.target in _TRANSPOSED
        # Without a batch axis it is one less.
        return is_convolution and _rank(node) == _rank(_operands(node)[1])

    @staticmethod
    def at(node: fx.Node, constants: Constants) -> LinearCall | None:
        """The linear call that `node` is, or None where its weights depend on the input, or nothing does."""
        _, weight, bias = _operands(node)
        if node in constants or weight not in constants or (bias is not None and bias not in constants):
            return None
        return LinearCall(
            node,
            module_name(node) or owner(next(iter(constants.sources(weight)), node.name)),
            constants.value(weight),
            None if bias is None else constants.value(bias),
            axis=node.meta["val"].dim() - 1 if node.target is aten.linear.default else 1,
        )

    @property
    def input(self) -> fx.Node:
        """The value that it reads."""
        x: fx.Node = _operands(self.node)[0]
        return x

    @property
    def out_channels(self) -> int:
        """The length of the output's channel axis."""
        return int(self.node.meta["val"].shape[self.axis])

    def followed_by(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The weight and bias of the call that computes this one and then `scale * y + shift`, `[C_out]`."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return self._scaled_weight(scale), bias

    def preceded_by(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The weight and bias of the call that computes `scale * x + shift`, `[C_in]`, and then this one.

        The shift is exact only where no border is padded.
        """
        weight = self._grouped_weight()  # [groups, C_out / groups, C_in / groups, k...]
        per_input = (weight.shape[0], 1, weight.shape[2], *[1] * (weight.dim() - 3))
        own = (weight * shift.reshape(per_input)).flatten(2).sum(2).reshape(-1)
        bias = own if self.bias is None else self.bias + own
        scaled = weight * scale.reshape(per_input)
        return (scaled.transpose(1, 2) if self.is_transposed else scaled).reshape(self.weight.shape), bias

    def response(self, shift: Tensor) -> Tensor | None:
        """What this call without its bias makes of an input that is `shift`, `[C_in]`, everywhere.

        The answer is `[1, C_out, ...]`. Padded zeros stay zeros, so its border differs from its middle.
        None where the number of rows changes more than the first axis.
        """
        if not all(isinstance(size, int) for size in self.input.meta["val"].shape[1:]):
            return None
        shape = [1, *shape_of(self.input)[1:]]
        field = shift.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape).contiguous()
        given = {key: value for key, value in self.node.kwargs.items() if key not in ("weight", "bias")}
        answer: Tensor = self.node.target(field, self.weight, None, *self.node.args[3:], **given)  # type: ignore[operator]
        return answer

    def by_output_channel(self, values: Tensor) -> Tensor:
        """The sums `[C_out]` over each output channel's part of `values`, which lie as the weights do."""
        return replace(self, weight=values)._grouped_weight().flatten(2).sum(2).reshape(-1)

    @property
    def in_channels(self) -> int:
        """The length of the input's channel axis."""
        return int(self._grouped_weight().shape[2]) * self._geometry.groups

    @property
    def is_transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return self.node.target in _TRANSPOSED

    @property
    def pads(self) -> bool:
        """Whether zeros are added around the input, or its border is otherwise special."""
        return self.is_transposed or self._geometry.pads

    def plus(self, other: LinearCall, sign: int) -> tuple[Tensor, Tensor] | None:
        """The weight and bias of the call that computes this one plus `sign` times another of the same input.

        None where no kernel of this call's shape does that.
        """
        own, its = self._geometry, other._geometry
        if self.node.target is not other.node.target or self.is_transposed:
            return None
        taps = own.taps_of(its) if (own.groups, own.stride) == (its.groups, its.stride) else None
        if taps is None:
            return None
        weight = self.weight.clone()
        place: Any = (..., *(torch.meshgrid(*taps, indexing="ij") if taps else ()))
        weight[place] += sign * other.weight
        nothing = torch.zeros(self.out_channels, dtype=torch.float64)
        bias, added = (nothing if bias is None else bias for bias in (self.bias, other.bias))
        return weight, bias + sign * added

    def plus_affine(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor] | None:
        """The weight and bias of the call that computes this one plus `scale * x + shift`, `[C]`.

        None where no kernel of this call's shape does that.
        """
        geometry = self._geometry
        taps = geometry.taps_of(Geometry.of_a_point(len(geometry.kernel)))
        passes_on = not self.is_transposed and set(geometry.stride) == {1}  # a product has no stride
        if taps is None or not passes_on or self.in_channels != self.out_channels:
            return None
        weight = self.weight.clone()
        channels = torch.arange(self.out_channels)
        place: Any = (channels, channels % weight.shape[1], *[int(tap) for tap in taps])
        weight[place] += scale
        return weight, shift.clone() if self.bias is None else self.bias + shift

    @cached_property
    def _geometry(self) -> Geometry:
        return Geometry.of(self.node)

    def _grouped_weight(self) -> Tensor:
        if self.is_transposed:
            c_in, c_out, *kernel = self.weight.shape
            blocks = self.weight.reshape(self._geometry.groups, c_in // self._geometry.groups, c_out, *kernel)
            return blocks.transpose(1, 2)
        c_out, c_in, *kernel = self.weight.shape
        return self.weight.reshape(self._geometry.groups, c_out // self._geometry.groups, c_in, *kernel)

    def _scaled_weight(self, scale: Tensor) -> Tensor:
        if not self.is_transposed:
            return self.weight * scale.reshape(-1, *[1] * (self.weight.dim() - 1))
        # A transposed weight is [C_in, C_out / groups, k...], and group g owns the g-th block of both.
        groups = self._geometry.groups
        c_in, c_out, *kernel = self.weight.shape
        blocks = self.weight.reshape(groups, c_in // groups, c_out, *kernel)
        return (blocks * scale.reshape(groups, 1, c_out, *[1] * len(kernel))).reshape(self.weight.shape)


def set_weights(node: fx.Node, weight: fx.Node, bias: fx.Node) -> None:
    """Let the linear call `node` read another weight and bias; the stored tensors stay as they are."""
    x, _, _ = _operands(node)
    node.args = (x, weight, bias, *node.args[3:])
    node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("weight", "bias")}


def _rank(node: fx.Node) -> int:
    return int(node.meta["val"].dim())


def _operands(node: fx.Node) -> tuple[Any, Any, Any]:
    named = arguments(node)
    return named["input"], named["weight"], named["bias"]
