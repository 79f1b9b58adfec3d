"""Canonical form: one spelling for what networks write in several ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph.constants import Constants

aten = torch.ops.aten

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)


def canonicalise(graph: fx.Graph, constants: Constants) -> None:
    """Rewrite, in place: products with a constant matrix as `linear`, clamps with tensors by keyword, ...

    Slices of everything are dropped. What a rewrite does not understand stays as it is.
    """
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None:
            with graph.inserting_before(node):
                canonical = rewrite(node, constants)
            if canonical is not None:
                node.replace_all_uses_with(canonical)
                graph.erase_node(node)


def _slice(node: fx.Node, _: Constants) -> fx.Node | None:
    x, axis, start, end, step = [*node.args, *[None] * 5][:5]
    if not isinstance(x, fx.Node) or start not in (None, 0) or step not in (None, 1):
        return None
    length = x.meta["val"].shape[axis or 0]
    is_all = end is None or (isinstance(end, int) and end >= (length if isinstance(length, int) else 1 << 62))
    return x if is_all else None


def _product(node: fx.Node, constants: Constants) -> fx.Node | None:
    x, matrix = node.args
    return _linear(node, x, matrix, None, constants)


def _product_and_bias(node: fx.Node, constants: Constants) -> fx.Node | None:
    bias, x, matrix = node.args
    if any(node.kwargs.get(factor, 1) != 1 for factor in ("alpha", "beta")) or bias not in constants:
        return None
    return _linear(node, x, matrix, bias, constants) if _rank(bias) == 1 else None


def _linear(node: fx.Node, x: Any, matrix: Any, bias: Any, constants: Constants) -> fx.Node | None:
    if matrix not in constants or x in constants or _rank(matrix) != 2 or _rank(x) < 2:
        return None
    if not x.meta["val"].is_floating_point():
        return None
    weight = node.graph.call_function(aten.t.default, (matrix,))
    weight.meta = {"val": matrix.meta["val"].t()}
    return _written(node, aten.linear.default, (x, weight) if bias is None else (x, weight, bias))


def _clamp(node: fx.Node, _: Constants) -> fx.Node | None:
    if _shape(node.args[0]) != _shape(node):
        return None
    bounds = {
        name: bound for name, bound in zip(("min", "max"), node.args[1:], strict=False) if bound is not None
    }
    return _written(node, aten.clamp.Tensor, node.args[:1], {**bounds, **node.kwargs})


def _clamp_from_above(node: fx.Node, _: Constants) -> fx.Node | None:
    return _written(node, aten.clamp.default, (node.args[0], None, *node.args[1:]), dict(node.kwargs))


def _bounded(name: str) -> Callable[[fx.Node, Constants], fx.Node | None]:
    def rewrite(node: fx.Node, constants: Constants) -> fx.Node | None:
        varying = [value for value in node.args if value not in constants]
        bounds = [value for value in node.args if value in constants]
        is_clamp = len(varying) == len(bounds) == 1 and _shape(varying[0]) == _shape(node)
        return _written(node, aten.clamp.Tensor, (varying[0],), {name: bounds[0]}) if is_clamp else None

    return rewrite


def _convolution(node: fx.Node, _: Constants) -> fx.Node | None:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
    rank = _rank(weight) - 2
    if rank not in (1, 2, 3) or _rank(x) != rank + 2:
        return None
    if transposed:
        arguments = (x, weight, bias, stride, padding, output_padding, groups, dilation)
        return _written(node, _TRANSPOSED[rank - 1], arguments)
    return _written(node, _CONVOLUTIONS[rank - 1], (x, weight, bias, stride, padding, dilation, groups))


def _written(
    node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> fx.Node:
    """A call in the place of `node`, with what is known about it."""
    call = node.graph.call_function(target, args, kwargs)
    call.meta = dict(node.meta)
    return call


def _shape(node: Any) -> list[Any]:
    return list(node.meta["val"].shape)


def _rank(node: Any) -> int:
    return len(_shape(node))


_REWRITES: dict[Any, Callable[[fx.Node, Constants], fx.Node | None]] = {
    aten.slice.Tensor: _slice,
    aten.mm.default: _product,
    aten.matmul.default: _product,
    aten.addmm.default: _product_and_bias,
    aten.convolution.default: _convolution,
    aten.clamp.Tensor: _clamp,
    aten.clamp_max.default: _clamp_from_above,
    aten.clamp_min.Tensor: _bounded("min"),
    aten.clamp_max.Tensor: _bounded("max"),
    aten.maximum.default: _bounded("min"),
    aten.minimum.default: _bounded("max"),
}
