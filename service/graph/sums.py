"""Sums: values that are added and subtracted, through sums of sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from service.graph.chains import value_users
from service.graph.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten

_SUMS = {aten.add.Tensor, aten.sub.Tensor}


@dataclass(frozen=True)
class Summand:
    """One value of a sum."""

    value: fx.Node
    reader: fx.Node
    """The addition or subtraction that reads it."""
    sign: int
    """1 or -1: how it enters the whole sum."""

    @property
    def is_read_here_only(self) -> bool:
        """Whether nobody else reads the value."""
        return len(value_users(self.value)) == 1

    @property
    def other(self) -> fx.Node | None:
        """What its reader is without it; None where that would take an operation of its own."""
        first, second = legs(self.reader)
        if self.value is second:
            return first
        return second if self.reader.target is aten.add.Tensor else None


def is_sum(node: fx.Node) -> bool:
    """Whether `node` adds or subtracts two values that have its shape where there is one row."""
    return (
        node.target in _SUMS
        and not node.kwargs
        and len(node.args) == 2
        and all(isinstance(leg, fx.Node) and shape_of(leg) == shape_of(node) for leg in node.args)
    )


def legs(total: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two values that a sum reads."""
    first, second = total.args
    assert isinstance(first, fx.Node)  # noqa: S101 - for the type checker; `is_sum` has seen to it
    assert isinstance(second, fx.Node)  # noqa: S101
    return first, second


def whole(value: fx.Node) -> fx.Node:
    """The largest sum that `value` is only read to be part of; `value` itself where that is none."""
    readers = value_users(value)
    while len(readers) == 1 and is_sum(readers[0]) and readers[0].args[0] is not readers[0].args[1]:
        value = readers[0]
        readers = value_users(value)
    return value


def summands(total: fx.Node, sign: int = 1, intact: fx.Node | None = None) -> Iterator[Summand]:
    """The values of a sum, if `total` is one; in the place of a sum that nobody else reads, those of that.

    The value `intact` is not taken apart.
    """
    if not is_sum(total) or total.args[0] is total.args[1]:
        return
    first, second = legs(total)
    for leg, factor in ((first, sign), (second, -sign if total.target is aten.sub.Tensor else sign)):
        if is_sum(leg) and leg is not intact and len(value_users(leg)) == 1:
            yield from summands(leg, factor, intact)
        else:
            yield Summand(leg, total, factor)
