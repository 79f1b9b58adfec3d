"""Kept norms: a scale and shift with the activation behind it, as one call of oneDNN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.shapes import shape_of
from service.graph.stored_tensors import attribute
from service.plan.activations import Activation
from service.plan.lowering import Fusion, Step, is_alike, step_of

if TYPE_CHECKING:
    from service.plan.packing import Packing

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn

LEAST_ELEMENTS = 200_000
"""Elements of one row from which on one call takes no longer than two, whatever the batch.

Measured by `benchmarks/passes.py`.
"""
# These cost an exponential each. With cheaper ones two passes, the second in place, are as fast or faster.
_ACTIVATIONS = ("swish", "gelu")


def lower(
    module: fx.GraphModule, rows: int, packing: Packing, least_elements: int = LEAST_ELEMENTS
) -> dict[fx.Node, Step]:
    """Rewrite the graph in place for batches of about `rows`; the record of the calls that are oneDNN's now.

    The call is a convolution with one 1x1 filter per channel. Only float32 images: what was measured.
    """
    written: dict[fx.Node, Step] = {}
    for norm in module.graph.find_nodes(op="call_function", target=aten.addcmul.default):
        if math.prod(shape_of(norm)) < least_elements:
            continue
        (reader,) = norm.users if len(norm.users) == 1 else (None,)
        activation = Activation.at(reader) if reader else None
        if reader and activation and activation.name in _ACTIVATIONS and _is_of_images(module, norm):
            fusion = Fusion((norm, reader), activation=activation)
            step = step_of(fusion, "onednn")
            written[_written(module, fusion, rows, packing)] = step
    return written


def _is_of_images(module: fx.GraphModule, norm: fx.Node) -> bool:
    """Whether the call is `shift + x * scale` with float32 numbers per channel of images `[N, C, H, W]`."""
    shift, x, scale = norm.args
    if norm.kwargs or not isinstance(x, fx.Node) or not is_alike(x, norm):
        return False
    vectors = [_stored(module, part) for part in (shift, scale)]
    channels = [1, *shape_of(norm)[1:2], 1, 1]
    return all(v is not None and v.dtype == torch.float32 and list(v.shape) == channels for v in vectors)


def _stored(module: fx.GraphModule, node: Any) -> Tensor | None:
    return (
        attribute(module, str(node.target)) if isinstance(node, fx.Node) and node.op == "get_attr" else None
    )


def _written(module: fx.GraphModule, fusion: Fusion, rows: int, packing: Packing) -> fx.Node:
    """The fused call, in place of the norm and its activation."""
    x, activation, channels = fusion.call.args[1], fusion.activation, shape_of(fusion.call)[1]
    shift, scale = (attribute(module, str(fusion.call.args[part].target)) for part in (0, 2))  # type: ignore[union-attr]  # the call was looked at
    geometry: tuple[Any, ...] = ([0, 0], [1, 1], [1, 1], channels)
    filters, batch = scale.reshape(channels, 1, 1, 1).contiguous(), [rows, *shape_of(fusion.call)[1:]]
    packed = mkldnn._reorder_convolution_weight(filters, *geometry, batch)
    name, tensor = packing.keep(fusion.call.name, packed)
    module.register_buffer(name, tensor)
    module.register_buffer(f"{name}_bias", shift.reshape(channels))
    with module.graph.inserting_before(fusion.output):
        stored = module.graph.get_attr(name), module.graph.get_attr(f"{name}_bias")
        epilogue = activation.name, list(activation.scalars), activation.algorithm
        node = module.graph.call_function(
            mkldnn._convolution_pointwise.default, (x, *stored, *geometry, *epilogue)
        )
    node.meta = dict(fusion.output.meta)
    fusion.output.replace_all_uses_with(node)
    for replaced in reversed(fusion.run):
        module.graph.erase_node(replaced)
    return node
