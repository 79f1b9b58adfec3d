"""Data movement: operations whose every output element is some input element, unchanged.

No rule per operation: each is run once on the numbers of its input's elements, and where they end
up says where every scale and shift goes.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from service.graph.affine import Affine
from service.graph.chains import SHAPED_LIKE
from service.graph.shapes import concrete, shape_of

aten = torch.ops.aten

_MOVES: set[Any] = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.movedim.intlist,
    aten.movedim.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.narrow.default,
    aten.expand.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.flip.default,
    aten.roll.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.cat.default,
    aten.stack.default,
    *SHAPED_LIKE,
}
_SPLITS: set[Any] = {
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.tensor_split.sections,
    aten.unbind.int,
}


def is_movement(node: fx.Node) -> bool:
    """Whether the value of `node` is made of elements of its inputs alone."""
    if node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, fx.Node) and source.target in _SPLITS
    return node.target in _MOVES


def inputs(node: fx.Node) -> list[fx.Node]:
    """The values that a movement reads, in order; a value that it reads twice stands there twice."""
    call: Any = node.args[0] if node.target is operator.getitem else node
    first = call.args[0]
    return list(first) if isinstance(first, list | tuple) else [first]


def is_split(node: fx.Node) -> bool:
    """Whether `node` gives several parts, which `getitem` then picks."""
    return node.target in _SPLITS


def origins(node: fx.Node) -> Tensor:
    """For each output element the number of its input element, counted through all inputs in turn."""
    call: Any = node.args[0] if node.target is operator.getitem else node
    numbered, start = [], 0
    for source in inputs(node):
        shape = shape_of(source)
        count = torch.Size(shape).numel()
        numbered.append(torch.arange(start, start + count).reshape(shape))
        start += count
    first: Any = numbered if isinstance(call.args[0], list | tuple) else numbered[0]
    kwargs = {key: concrete(value) for key, value in call.kwargs.items() if key != "memory_format"}
    moved = call.target(first, *[concrete(argument) for argument in call.args[1:]], **kwargs)
    where: Tensor = moved[node.args[1]] if node.target is operator.getitem else moved
    return where


def backward(node: fx.Node, affine: Affine) -> list[Affine] | None:
    """The maps of the inputs that together are `affine` on the output; None where they would clash."""
    where = origins(node)
    scale, shift = (tensor.expand(where.shape).reshape(-1) for tensor in (affine.scale, affine.shift))
    where = where.reshape(-1)
    counts = [torch.Size(shape_of(source)).numel() for source in inputs(node)]
    scales, shifts = (
        torch.ones(sum(counts), dtype=torch.float64),
        torch.zeros(sum(counts), dtype=torch.float64),
    )
    scales[where], shifts[where] = scale, shift
    if not torch.equal(scales[where], scale) or not torch.equal(shifts[where], shift):
        return None
    shapes = [shape_of(source) for source in inputs(node)]
    parts = zip(scales.split(counts), shifts.split(counts), shapes, strict=True)  # type: ignore[no-untyped-call]
    return [Affine.compact(s.reshape(shape), t.reshape(shape)) for s, t, shape in parts]


def forward(node: fx.Node, source: fx.Node, affine: Affine) -> Affine:
    """The map of the output that `affine` on the input `source` amounts to."""
    scales, shifts = [], []
    for value in inputs(node):
        shape, is_mapped = shape_of(value), value is source
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        scales.append((affine.scale if is_mapped else one).expand(shape).reshape(-1))
        shifts.append((affine.shift if is_mapped else zero).expand(shape).reshape(-1))
    where = origins(node)
    return Affine.compact(torch.cat(scales)[where], torch.cat(shifts)[where])


def touched(node: fx.Node, source: fx.Node) -> Tensor:
    """Which elements of `source` a movement reads, as booleans of its shape."""
    start = 0
    for value in inputs(node):
        count = torch.Size(shape_of(value)).numel()
        if value is source:
            break
        start += count
    read = torch.zeros(count, dtype=torch.bool)
    where = origins(node).reshape(-1) - start
    read[where[(where >= 0) & (where < count)]] = True
    return read.reshape(shape_of(source))
