"""Small layers: where the fixed cost of a fused oneDNN call exceeds what it computes.

A fused call prepares its descriptors before it computes: 35 microseconds on the Zen 3 cores that this was
measured on, where an ATen call takes 10 and a matrix product 8. Microseconds in the interpreter, one thread:

| layer, for one row | multiply-adds | fused | ATen |
|---|---|---|---|
| 1x1, 480 to 20 channels, 1x1 pixel (a squeeze-excite gate) | 0.01 M | 37 | 8 |
| 1x1, 64 to 64, 14x14 | 0.8 M | 55 | 29 |
| 1x1, 384 to 64, 14x14 | 4.8 M | 146 | 126 |
| 1x1, 24 to 144, 56x56 | 10.8 M | 432 | 452 |
| 3x3, 32 to 32, 8x8 | 0.6 M | 51 | 30 |
| 3x3, 64 to 64, 7x7 | 1.8 M | 76 | 63 |
| 3x3, 128 to 128, 7x7 | 7.2 M | 278 | 274 |
| 3x3 depthwise, 64 channels, 7x7 | 0.03 M | 50 | 77 |
| linear, 1280 to 1000 | 1.3 M | 221 | 194 |
| linear, 4096 to 4096, for eight rows | 134 M | 9455 | 11177 |

With more rows a convolution in ATen goes through oneDNN too, unpacked; only products stay cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from service.graph.arguments import arguments
from service.graph.shapes import shape_of
from service.graph.stored_tensors import attribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.plan.lowering import Fusion

aten = torch.ops.aten

_PRODUCT, _CONVOLUTION = 4_000_000, 2_000_000


def is_small(call: fx.Node, rows: int) -> bool:
    """Whether ATen computes this linear call, in float32 and for about so many rows, faster than oneDNN."""
    work = multiply_adds(call)
    if call.target is aten.linear.default or is_pointwise(call):
        return rows * work < _PRODUCT
    return rows == 1 and work < _CONVOLUTION and arguments(call)["groups"] == 1


def multiply_adds(call: fx.Node) -> int:
    """Those of one row: every weight once for each output pixel; if transposed, for each input pixel."""
    named = arguments(call)
    if call.target is aten.linear.default:
        return math.prod(shape_of(named["weight"])) * math.prod(shape_of(call)[1:-1])
    pixels = shape_of(named["input"] if "output_padding" in named else call)[2:]
    return math.prod(shape_of(named["weight"])) * math.prod(pixels)


def is_pointwise(call: fx.Node) -> bool:
    """Whether a 2d convolution is a matrix product over the channels of each pixel."""
    named = arguments(call)
    return (
        call.target is aten.conv2d.default
        and shape_of(named["weight"])[2:] == [1, 1]
        and set(named["stride"]) == {1}
        and set(named["padding"]) == {0}
        and named["groups"] == 1
    )


def write_product(module: fx.GraphModule, fusion: Fusion) -> list[fx.Node]:
    """A pointwise convolution and its activation on the pixels as rows `[N * H * W, C]`.

    Answers the nodes that compute, and the view of their result. The caller erases what they replace.
    """
    named = arguments(fusion.call)
    weight, name = attribute(module, str(named["weight"].target)), f"_transposed_{fusion.call.name}"
    module.register_buffer(name, weight.reshape(weight.shape[:2]).t().contiguous())
    write = module.graph.call_function
    with module.graph.inserting_before(fusion.run[-1]):
        pixels = _view(write, named["input"], shape_of(named["input"]), to_rows=True)
        operands = (named["bias"], pixels, module.graph.get_attr(name))
        product = (
            write(aten.addmm.default, operands) if named["bias"] else write(aten.mm.default, operands[1:])
        )
        product.meta = dict(fusion.call.meta)
        computed = [product]
        for node in fusion.run[1:]:
            computed.append(module.graph.node_copy(node, lambda _: computed[-1]))
        viewed = _view(write, computed[-1], shape_of(fusion.call), to_rows=False)
    viewed.meta = dict(fusion.output.meta)
    fusion.output.replace_all_uses_with(viewed)
    return [*computed, viewed]


def _view(write: Callable[..., fx.Node], x: Any, shape: list[int], *, to_rows: bool) -> fx.Node:
    """`[N, C, H, W]`, channels-last, as `[N * H * W, C]`, or back; nothing is copied."""
    _, channels, *pixels = shape
    if pixels == [1, 1]:
        return write(aten.reshape.default, (x, [-1, channels] if to_rows else [-1, channels, 1, 1]))
    if to_rows:
        return write(aten.reshape.default, (write(aten.permute.default, (x, [0, 2, 3, 1])), [-1, channels]))
    return write(
        aten.permute.default, (write(aten.reshape.default, (x, [-1, *pixels, channels])), [0, 3, 1, 2])
    )
