"""Linear calls: convolutions and matrix products seen as a weight, a bias and an output axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.constants import Constants, owner

if TYPE_CHECKING:
    from service.graph.affine import Affine

aten = torch.ops.aten

_CONVOLUTIONS: set[Any] = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
}
# The position of `groups` among the arguments.
_TRANSPOSED: dict[Any, int] = {
    aten.conv_transpose1d.default: 6,
    aten.conv_transpose2d.input: 6,
    aten.conv_transpose3d.input: 6,
}


@dataclass(frozen=True)
class LinearCall:
    """A call `op(x, weight, bias, ...)` whose weight and bias are constants (float64 here)."""

    node: fx.Node
    name: str
    """The module that owns the weight, in the original network's names."""
    weight: Tensor
    bias: Tensor | None
    axis: int
    """The axis of the output that the weight's output channels lie on."""

    @staticmethod
    def is_one(node: fx.Node) -> bool:
        """Whether `node` is a convolution or a linear call at all."""
        return (
            node.target in _CONVOLUTIONS or node.target in _TRANSPOSED or node.target is aten.linear.default
        )

    @staticmethod
    def at(node: fx.Node, constants: Constants) -> LinearCall | None:
        """The linear call that `node` is, or None where its weights depend on the input."""
        _, weight, bias = _operands(node)
        if weight not in constants or (bias is not None and bias not in constants):
            return None
        return LinearCall(
            node,
            owner(constants.sources(weight)[0]),
            constants.value(weight),
            None if bias is None else constants.value(bias),
            axis=node.meta["val"].dim() - 1 if node.target is aten.linear.default else 1,
        )

    @property
    def out_channels(self) -> int:
        """The length of the output's channel axis."""
        return int(self.node.meta["val"].shape[self.axis])

    def followed_by(self, affine: Affine) -> tuple[Tensor, Tensor]:
        """The float64 weight and bias of the one call that computes this one and then `affine`."""
        scale, shift = affine.scale.expand(self.out_channels), affine.shift.expand(self.out_channels)
        bias = shift if self.bias is None else self.bias * scale + shift
        return self._scaled_weight(scale), bias

    def _scaled_weight(self, scale: Tensor) -> Tensor:
        if self.node.target not in _TRANSPOSED:
            return self.weight * scale.reshape(-1, *[1] * (self.weight.dim() - 1))
        # A transposed weight is [C_in, C_out / groups, k...], and group g owns the g-th block of both.
        groups = _argument(self.node, _TRANSPOSED[self.node.target], "groups", 1)
        c_in, c_out, *kernel = self.weight.shape
        blocks = self.weight.reshape(groups, c_in // groups, c_out, *kernel)
        return (blocks * scale.reshape(groups, 1, c_out, *[1] * len(kernel))).reshape(self.weight.shape)


def set_weights(node: fx.Node, weight: fx.Node, bias: fx.Node) -> None:
    """Let the linear call `node` read another weight and bias; the stored tensors stay as they are."""
    x, _, _ = _operands(node)
    node.args = (x, weight, bias, *node.args[3:])
    node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("weight", "bias")}


def _operands(node: fx.Node) -> tuple[Any, Any, Any]:
    return node.args[0], _argument(node, 1, "weight", None), _argument(node, 2, "bias", None)


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
