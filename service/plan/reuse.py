"""Reuse: calls that write their result into memory that nobody reads any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from service.graph.arguments import arguments
from service.plan.lowering import is_alike

if TYPE_CHECKING:
    from collections.abc import Mapping

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn

# The operand that may be overwritten comes first; a sum and a product may change their operands' places.
_IN_PLACE: dict[Any, Any] = {
    aten.relu.default: aten.relu_.default,
    aten.relu6.default: aten.relu6_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.clamp.default: aten.clamp_.default,
    aten.clamp_min.default: aten.clamp_min_.default,
    aten.hardswish.default: aten.hardswish_.default,
    aten.hardsigmoid.default: aten.hardsigmoid_.default,
    aten.silu.default: aten.silu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.tanh.default: aten.tanh_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
}
_COMMUTATIVE = {aten.add.Tensor, aten.mul.Tensor}
_WITH_OUT: dict[Any, tuple[Any, int]] = {
    aten.addcmul.default: (aten.addcmul.out, 1),
    aten.maximum.default: (aten.maximum.out, 0),
    aten.minimum.default: (aten.minimum.out, 0),
}
# Calls whose results are memory of their own. Of any other the result may be a view of an argument.
_FRESH: set[Any] = {
    *_IN_PLACE,
    *_IN_PLACE.values(),
    *_WITH_OUT,
    *(target for target, _ in _WITH_OUT.values()),
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.linear.default,
    aten.addmm.default,
    aten.mm.default,
    aten.batch_norm.default,
    aten.gelu.default,
    aten.clamp.Tensor,
    aten.cat.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.mean.dim,
    aten.cudnn_convolution_relu.default,
    aten.cudnn_convolution_add_relu.default,
    mkldnn._convolution_pointwise.default,
    mkldnn._convolution_pointwise.binary,
    mkldnn._convolution_pointwise_.binary,
    mkldnn._convolution_transpose_pointwise.default,
    mkldnn._linear_pointwise.default,
}


def reuse_memory(graph: fx.Graph) -> None:
    """Let calls overwrite an operand of theirs that is dead behind them; the graph is changed in place."""
    _simplify_clamps(graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.target is mkldnn._convolution_pointwise.binary:
            _accumulate(node, order)
        elif node.target in _IN_PLACE:
            _write_in_place(node, order)
        elif node.target in _WITH_OUT:
            target, position = _WITH_OUT[node.target]
            if _may_become(node.args[position], node, order):
                node.target, node.kwargs = target, {**node.kwargs, "out": node.args[position]}


def _simplify_clamps(graph: fx.Graph) -> None:
    """A clamp with one bound per channel is a maximum or a minimum, which are two to three times as fast."""
    for node in graph.nodes:
        if node.target is aten.clamp.Tensor:
            x, low, high = arguments(node).values()
            if low is None or high is None:
                node.target = aten.maximum.default if high is None else aten.minimum.default
                node.args, node.kwargs = (x, low if high is None else high), {}


def _accumulate(node: fx.Node, order: Mapping[fx.Node, int]) -> None:
    """A convolution that adds to a dead value writes there."""
    x, other, *rest = node.args
    if x is not other and _may_become(other, node, order):
        node.target, node.args = mkldnn._convolution_pointwise_.binary, (other, x, *rest)


def _write_in_place(node: fx.Node, order: Mapping[fx.Node, int]) -> None:
    operands = node.args
    swapped = (operands[1], operands[0], *operands[2:]) if node.target in _COMMUTATIVE else operands
    may_swap = arguments(node).get("alpha", 1) == 1
    for args in (operands, swapped) if may_swap else (operands,):
        if _may_become(args[0], node, order):
            node.target, node.args = _IN_PLACE[node.target], args
            return


def _may_become(value: Any, node: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether the result of `node` may overwrite `value`: alike, memory of its own, read by nobody later."""
    if not isinstance(value, fx.Node) or value.target not in _FRESH or not is_alike(value, node):
        return False
    others = [user for user in value.users if user is not node]
    return all(user.target in _FRESH and order[user] < order[node] for user in others)
