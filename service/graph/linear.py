"""Linear calls: convolutions and matrix products seen as a weight, a bias and an output axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.capture import module_name
from service.graph.constants import owner

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
    """The module that makes the call, in the original network's names."""
    weight: Tensor
    bias: Tensor | None
    axis: int
    """The axis of the output that the weight's output channels lie on."""

    @staticmethod
    def is_one(node: fx.Node) -> bool:
        """Whether `node` is a convolution or a linear call at all."""
        if node.target is aten.linear.default:
            return len(_operands(node)[1].meta["val"].shape) == 2  # with a vector it has no output channels
        return node.target in _CONVOLUTIONS or node.target in _TRANSPOSED

    @staticmethod
    def at(node: fx.Node, constants: Constants) -> LinearCall | None:
        """The linear call that `node` is, or None where its weights depend on the input."""
        _, weight, bias = _operands(node)
        if weight not in constants or (bias is not None and bias not in constants):
            return None
        return LinearCall(
            node,
            module_name(node) or owner(next(iter(constants.sources(weight)), node.name)),
            constants.value(weight),
            None if bias is None else constants.value(bias),
            axis=node.meta["val"].dim() - 1 if node.target is aten.linear.default else 1,
        )

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
        return (weight * scale.reshape(per_input)).reshape(self.weight.shape), bias

    @property
    def in_channels(self) -> int:
        """The length of the input's channel axis."""
        return int(self._grouped_weight().shape[2]) * self.groups

    @property
    def groups(self) -> int:
        """How many groups the channels are in."""
        if self.node.target is aten.linear.default:
            return 1
        return int(_argument(self.node, _TRANSPOSED.get(self.node.target, 6), "groups", 1))

    @property
    def is_transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return self.node.target in _TRANSPOSED

    @property
    def pads(self) -> bool:
        """Whether zeros are added around the input, or its border is otherwise special."""
        return self.is_transposed or self._padding() != [0] * len(self._kernel)

    def center(self) -> tuple[int, ...] | None:
        """Where a kernel that passes its input on has its one 1; None where no kernel here does that."""
        reach = [
            d * (size // 2) for d, size in zip(self._numbers(5, "dilation", 1), self._kernel, strict=True)
        ]
        fits = (
            not self.is_transposed
            and self.node.target is not aten.linear.default
            and all(size % 2 == 1 for size in self._kernel)
            and self._padding() == reach
            and set(self._numbers(3, "stride", 1)) == {1}
            and self.in_channels == self.out_channels
        )
        return tuple(size // 2 for size in self._kernel) if fits else None

    @property
    def _kernel(self) -> list[int]:
        return list(self.weight.shape[2:])

    def _padding(self) -> list[int]:
        """Zeros on each side, per spatial axis; torch's `same` may add one more on one side."""
        padding = _argument(self.node, 4, "padding", 0)
        if padding == "valid":
            return [0] * len(self._kernel)
        if padding == "same":
            dilation = self._numbers(5, "dilation", 1)
            return [math.ceil(d * (size - 1) / 2) for d, size in zip(dilation, self._kernel, strict=True)]
        return self._numbers(4, "padding", 0)

    def _numbers(self, position: int, name: str, default: int) -> list[int]:
        """An argument that is one number per spatial axis, or one for all."""
        value = _argument(self.node, position, name, default)
        listed = list(value) if isinstance(value, list | tuple) else [value]
        return listed * len(self._kernel) if len(listed) == 1 else listed

    def plus_affine(self, scale: Tensor, shift: Tensor, center: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The weight and bias of the call that computes this one plus `scale * x + shift`."""
        weight = self.weight.clone()
        channels = torch.arange(self.out_channels)
        place: tuple[Any, ...] = (channels, channels % weight.shape[1], *center)
        weight[place] += scale
        return weight, shift.clone() if self.bias is None else self.bias + shift

    def _grouped_weight(self) -> Tensor:
        if self.is_transposed:
            c_in, c_out, *kernel = self.weight.shape
            blocks = self.weight.reshape(self.groups, c_in // self.groups, c_out, *kernel)
            return blocks.transpose(1, 2)
        c_out, c_in, *kernel = self.weight.shape
        return self.weight.reshape(self.groups, c_out // self.groups, c_in, *kernel)

    def _scaled_weight(self, scale: Tensor) -> Tensor:
        if self.node.target not in _TRANSPOSED:
            return self.weight * scale.reshape(-1, *[1] * (self.weight.dim() - 1))
        # A transposed weight is [C_in, C_out / groups, k...], and group g owns the g-th block of both.
        groups = self.groups
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
