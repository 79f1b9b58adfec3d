"""The oneDNN backend: convolutions and linear layers with what follows them, as one prepacked call each.

The operators are stock torch's (`torch.ops.mkldnn`); nothing is compiled. Values are channels-last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.arguments import arguments
from service.graph.geometry import Geometry
from service.graph.linear import LinearCall
from service.graph.shapes import shape_of
from service.graph.stored_tensors import attribute
from service.plan.lowering import Fusion, Step, fusion_at, step_of
from service.plan.small import is_pointwise, is_small, write_product

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.plan.packing import Packing

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn

_CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.conv3d.padding}
_AFTER_ADD = ("none", "relu")

# The oneDNN of torch 2.11 (3.10) adds nothing to feature maps of one pixel: "could not create a memory".
_ADDS_TO_ONE_PIXEL = torch.__version__ >= "2.12"


def is_supported(precision: torch.dtype) -> bool:
    """Whether this torch on this processor has the operators in `precision`."""
    if not torch._C._has_mkldnn or mkldnn._is_mkldnn_acl_supported():
        return False
    checks: dict[torch.dtype, Callable[[], bool]] = {
        torch.float32: lambda: True,
        torch.bfloat16: mkldnn._is_mkldnn_bf16_supported,
        torch.float16: mkldnn._is_mkldnn_fp16_supported,
    }
    return precision in checks and checks[precision]()


def lower(
    module: fx.GraphModule, precision: torch.dtype, rows: int, packing: Packing
) -> dict[fx.Node, Step | None]:
    """Rewrite the graph in place for batches of about `rows`; answers the steps written, None for views.

    `packing` keeps the packed weights, for the lowering to another number of rows.
    """
    order = {node: position for position, node in enumerate(module.graph.nodes)}
    written: dict[fx.Node, Step | None] = {}
    for call in list(module.graph.nodes):
        if not LinearCall.is_one(call) or not _is_packable(call):
            continue
        if precision == torch.float32 and is_small(call, rows):
            written |= _small(module, call, order)
            continue
        fusion = fusion_at(call, order, _AFTER_ADD if _has_sum(call) else None)
        step = step_of(fusion, "onednn")
        node = _written(module, fusion, rows, packing)
        order[node] = order[fusion.output]
        written[node] = step
    return written


def _small(module: fx.GraphModule, call: fx.Node, order: dict[fx.Node, int]) -> dict[fx.Node, Step | None]:
    """Leave a small layer to ATen: a pointwise convolution as a matrix product, others as they are."""
    if not is_pointwise(call):
        return {}
    fusion = fusion_at(call, order, None)
    recorded = [*(step_of(Fusion((node,)), "aten") for node in fusion.run), None]
    nodes = write_product(module, fusion)
    order[nodes[-1]] = order[fusion.output]
    _erase(module, fusion)
    return dict(zip(nodes, recorded, strict=True))


def _has_sum(call: fx.Node) -> bool:
    """Whether there is an operator that computes this call and adds something to its answer."""
    has_one_pixel = math.prod(shape_of(call)[2:]) == 1
    return call.target in _CONVOLUTIONS and (_ADDS_TO_ONE_PIXEL or not has_one_pixel)


def _is_packable(call: fx.Node) -> bool:
    """Whether the operators compute this call: its weights are stored, and they know its geometry."""
    named = arguments(call)
    weight, bias = named["weight"], named["bias"]
    if weight.op != "get_attr" or (bias is not None and bias.op != "get_attr"):
        return False
    if call.target is aten.linear.default:
        return True
    if named["input"].meta["val"].dim() != weight.meta["val"].dim():
        return False  # there is no batch axis
    if call.target not in _CONVOLUTIONS and not _is_transposed(call):
        return False
    geometry = Geometry.of(call)
    if geometry.output_padding is None:
        return geometry.is_symmetric
    is_depthwise = geometry.groups > 1 and geometry.groups == weight.meta["val"].shape[0]
    extra = zip(geometry.output_padding, geometry.stride, strict=True)
    return not is_depthwise and all(zeros < step for zeros, step in extra)


def _is_transposed(call: fx.Node) -> bool:
    return bool(call.target is aten.conv_transpose2d.input)


def _numbers(call: fx.Node) -> tuple[Any, ...]:
    """Padding, stride, dilation, groups; of a transposed convolution the output padding behind the first."""
    geometry = Geometry.of(call)
    extra = () if geometry.output_padding is None else (geometry.output_padding,)
    return geometry.padding, *extra, geometry.stride, geometry.dilation, geometry.groups


def _written(module: fx.GraphModule, fusion: Fusion, rows: int, packing: Packing) -> fx.Node:
    """The fused call, in place of the nodes that it computes."""
    weight = attribute(module, str(arguments(fusion.call)["weight"].target))
    name, tensor = packing.keep(fusion.call.name, _packed(fusion.call, weight, rows))
    module.register_buffer(name, tensor)
    with module.graph.inserting_before(fusion.output):
        target, args = _call(fusion, module.graph.get_attr(name))
        node = module.graph.call_function(target, args)
    node.meta = dict(fusion.output.meta)
    fusion.output.replace_all_uses_with(node)
    _erase(module, fusion)
    return node


def _erase(module: fx.GraphModule, fusion: Fusion) -> None:
    for replaced in reversed(fusion.run):
        module.graph.erase_node(replaced)


def _packed(call: fx.Node, weight: Tensor, rows: int) -> Tensor:
    """The weight in the layout that oneDNN wants for so many rows, an opaque tensor."""
    batch = [rows, *shape_of(arguments(call)["input"])[1:]]
    packed: Tensor
    if call.target is aten.linear.default:
        packed = mkldnn._reorder_linear_weight(weight, math.prod(batch[:-1]))
    elif _is_transposed(call):
        packed = mkldnn._reorder_convolution_transpose_weight(weight, *_numbers(call), batch)
    else:
        packed = mkldnn._reorder_convolution_weight(weight, *_numbers(call), batch)
    return packed


def _call(fusion: Fusion, packed: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """The operator and its arguments."""
    named, activation = arguments(fusion.call), fusion.activation
    x, bias = named["input"], named["bias"]
    epilogue = (activation.name, list(activation.scalars), activation.algorithm)
    if fusion.call.target is aten.linear.default:
        return mkldnn._linear_pointwise.default, (x, packed, bias, *epilogue)
    geometry = _numbers(fusion.call)
    if _is_transposed(fusion.call):
        return mkldnn._convolution_transpose_pointwise.default, (x, packed, bias, *geometry, *epilogue)
    if fusion.other is None:
        return mkldnn._convolution_pointwise.default, (x, packed, bias, *geometry, *epilogue)
    after = None if activation.name == "none" else activation.name
    summed = (x, fusion.other, packed, bias, *geometry, "add", None, after, [], None)
    return mkldnn._convolution_pointwise.binary, summed
