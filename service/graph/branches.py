"""Branches: a norm beside a convolution of the same input, both summed, is part of that convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from service.graph.chains import value_users
from service.graph.linear import LinearCall
from service.graph.shapes import shape_of
from service.graph.surgery import NotFoldable, Surgery

if TYPE_CHECKING:
    from service.graph.chains import AffineChain

aten = torch.ops.aten


def into_sibling(surgery: Surgery, chain: AffineChain) -> tuple[str, ...]:
    """Add the chain to the kernel of a convolution that is summed with it; the answer is its name."""
    value = surgery.current(chain.input)
    readers = value_users(chain.output)
    if len(readers) != 1 or not _is_sum(readers[0]):
        raise NotFoldable("it is not summed with anything")
    total = readers[0]
    for sibling in _summands(total, chain.output):
        linear = LinearCall.at(sibling, surgery.constants) if LinearCall.is_one(sibling) else None
        if linear is None or sibling.args[0] is not value or shape_of(sibling) != shape_of(value):
            continue
        center, vectors = linear.center(), chain.affine.vectors(linear.axis, linear.out_channels)
        if center is not None and vectors is not None:
            surgery.give_weights(linear, *linear.plus_affine(*vectors, center))
            other = next(leg for leg in total.all_input_nodes if leg is not chain.output)
            surgery.replace(total, other)
            return (linear.name,)
    raise NotFoldable("no convolution of the same input is summed with it")


def _is_sum(node: fx.Node) -> bool:
    legs = node.args[:2]
    return (
        node.target is aten.add.Tensor
        and not node.kwargs
        and all(isinstance(leg, fx.Node) for leg in legs)
        and legs[0] is not legs[1]
    )


def _summands(total: fx.Node, besides: fx.Node) -> list[fx.Node]:
    """The values that are only read to be part of this sum, through sums of sums."""
    found: list[fx.Node] = []
    for leg in total.all_input_nodes:
        if leg is besides or len(value_users(leg)) != 1:
            continue
        found += _summands(leg, besides) if _is_sum(leg) else [leg]
    return found
