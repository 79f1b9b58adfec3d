"""The cuDNN backend: convolutions with the sum and the ReLU behind them, as one call each.

The operators are stock torch's (`aten.cudnn_convolution_relu`, `aten.cudnn_convolution_add_relu`). Both
end in the ReLU, always: a convolution that may have none behind it stays the ATen call that it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from service.graph.arguments import arguments
from service.graph.geometry import Geometry
from service.graph.linear import LinearCall
from service.graph.stored_tensors import attribute
from service.plan.activations import Activation
from service.plan.lowering import Fusion, Step, fusion_at, step_of

if TYPE_CHECKING:
    from collections.abc import Mapping

aten = torch.ops.aten

_CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.conv3d.padding}
_RELU, _CLAMP = Activation("relu"), "hardtanh"


def lower(module: fx.GraphModule) -> dict[fx.Node, Step | None]:
    """Rewrite the graph in place; the record of the calls that are cuDNN's now."""
    order = {node: position for position, node in enumerate(module.graph.nodes)}
    written: dict[fx.Node, Step | None] = {}
    for call in list(module.graph.nodes):
        geometry = _geometry(call)
        fusion = _fusion(call, order) if geometry else None
        if geometry is None or fusion is None:
            continue
        _take_bias(module, fusion, f"_bias_{len(written)}")
        node = _written(module.graph, fusion, geometry)
        order[node] = order[fusion.output]
        written[node] = step_of(fusion, "cudnn")
    return written


def _geometry(call: fx.Node) -> Geometry | None:
    """The geometry of a convolution that the operators compute; None for anything else.

    Grouped convolutions are left alone: torch has kernels of its own for depthwise ones, and with fewer
    groups nobody has measured what the epilogue costs.
    """
    if call.target not in _CONVOLUTIONS or not LinearCall.is_one(call):
        return None
    geometry = Geometry.of(call)
    return geometry if geometry.is_symmetric and geometry.groups == 1 else None


def _fusion(call: fx.Node, order: Mapping[fx.Node, int]) -> Fusion | None:
    """The run behind `call` that ends in a ReLU, or None.

    A clamp from 0 to something, such as ReLU6, stays behind a ReLU that changes nothing for it: the bias
    then rides inside, which on its own is a pass over the whole value.
    """
    fusion = fusion_at(call, order, (_RELU.name, _CLAMP))
    if fusion.activation.name == _CLAMP and fusion.activation.scalars[0] == 0:
        return replace(fusion, run=fusion.run[:-1], activation=_RELU)
    return fusion if fusion.activation == _RELU else None


def _take_bias(module: fx.GraphModule, fusion: Fusion, name: str) -> None:
    """Take over the bias of the convolution that is added: alone it costs a pass over its whole value."""
    other = fusion.other
    if other is None or other.target not in _CONVOLUTIONS or len(other.users) > 1:
        return
    theirs, own = arguments(other)["bias"], arguments(fusion.call)["bias"]
    if not _is_stored(theirs) or not (own is None or _is_stored(own)):
        return
    biases = [attribute(module, str(bias.target)).double() for bias in (theirs, own) if bias is not None]
    dtype = attribute(module, str(theirs.target)).dtype
    module.register_buffer(name, sum(biases[1:], biases[0]).to(dtype))
    with module.graph.inserting_before(fusion.call):
        taken = module.graph.get_attr(name)
    taken.meta = dict(theirs.meta)
    _set_bias(fusion.call, taken)
    _set_bias(other, None)


def _is_stored(bias: Any) -> bool:
    return isinstance(bias, fx.Node) and bias.op == "get_attr"


def _set_bias(call: fx.Node, bias: fx.Node | None) -> None:
    call.args = (call.args[0], arguments(call)["weight"], bias, *call.args[3:])
    call.kwargs = {key: value for key, value in call.kwargs.items() if key not in ("weight", "bias")}


def _written(graph: fx.Graph, fusion: Fusion, geometry: Geometry) -> fx.Node:
    """The fused call, in place of the nodes that it computes."""
    with graph.inserting_before(fusion.output):
        node = graph.call_function(*_call(fusion, geometry))
    node.meta = dict(fusion.output.meta)
    fusion.output.replace_all_uses_with(node)
    for replaced in reversed(fusion.run):
        graph.erase_node(replaced)
    return node


def _call(fusion: Fusion, geometry: Geometry) -> tuple[Any, tuple[Any, ...]]:
    """The operator and its arguments."""
    named = arguments(fusion.call)
    x, weight, bias = named["input"], named["weight"], named["bias"]
    moves = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    if fusion.other is None:
        return aten.cudnn_convolution_relu.default, (x, weight, bias, *moves)
    alpha = None  # one
    return aten.cudnn_convolution_add_relu.default, (x, weight, fusion.other, alpha, bias, *moves)
