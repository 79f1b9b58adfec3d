"""Flattening: what a linear layer reads of images stays in the order that it has in memory, channels-last."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from service.graph.movement import is_movement
from service.graph.shapes import shape_of
from service.graph.stored_tensors import attribute

aten = torch.ops.aten

_RESHAPES = {aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten._unsafe_view.default}


def keep_order(module: fx.GraphModule) -> None:
    """Put the columns of linear layers behind a flattening into the order of memory, in place.

    Flattened channel by channel, as networks are written, channels-last images are copied first.
    """
    for call in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        flat, weight = call.args[:2]
        images = _flattened(flat)
        if images is not None and weight.op == "get_attr" and weight.meta["val"].dim() == 2:
            columns = attribute(module, weight.target).reshape(-1, *shape_of(images)[1:]).movedim(1, -1)
            name = f"_in_order_{call.name}"
            module.register_buffer(name, columns.flatten(1).contiguous())
            with module.graph.inserting_before(call):
                stored = module.graph.get_attr(name)
                stored.meta["val"] = weight.meta["val"]
                call.replace_input_with(weight, stored)
                call.replace_input_with(flat, _in_order(images, flat))
    module.graph.eliminate_dead_code()


def _flattened(flat: fx.Node) -> fx.Node | None:
    """The images `[N, C, ...]` whose `[N, C * ...]` it is; None where it is not, or they have one pixel."""
    if flat.target not in _RESHAPES:
        return None
    images: Any = flat.args[0]
    shape, rows = flat.meta["val"].shape, images.meta["val"].shape[0]
    is_whole = len(shape) == 2 and str(shape[0]) == str(rows)
    has_pixels = math.prod(shape_of(images)[2:]) > 1
    return images if is_whole and has_pixels and not is_movement(images) else None


def _in_order(images: fx.Node, flat: fx.Node) -> fx.Node:
    """The same, pixel by pixel: a view of channels-last memory."""
    order = [0, *range(2, images.meta["val"].dim()), 1]
    turned = images.graph.call_function(aten.permute.default, (images, order))
    turned.meta["val"] = images.meta["val"].permute(order)
    kept = images.graph.call_function(aten.flatten.using_ints, (turned, 1))
    kept.meta = dict(flat.meta)
    return kept
