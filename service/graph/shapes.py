"""Shapes and arguments as they are for one row: numbers in place of a dynamic batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def concrete(value: Any) -> Any:
    """An argument with its symbolic sizes as they are for a batch of one row; of a tensor, the shape only."""
    if isinstance(value, fx.Node):
        return concrete(value.meta["val"])
    if isinstance(value, torch.Tensor):  # an argument that gives its shape
        return torch.empty(concrete(list(value.shape)), dtype=torch.int64, device="cpu")
    if isinstance(value, torch.SymInt):
        expression = value.node.expr
        return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))
    if isinstance(value, list | tuple):
        return type(value)([concrete(item) for item in value])
    return value


def shape_of(node: fx.Node) -> list[int]:
    """The shape of a tensor value for a batch of one row."""
    return [int(concrete(size)) for size in node.meta["val"].shape]
