"""Shapes and arguments as they are for one row: numbers in place of a dynamic batch."""

from __future__ import annotations

import math
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


def largest_bytes(graph: fx.Graph) -> int:
    """The bytes of the largest tensor that any call makes for a batch of one row."""
    made = (node.meta.get("val") for node in graph.nodes if node.op == "call_function")
    tensors = (part for value in made for part in (value if isinstance(value, list | tuple) else [value]))
    return max((_bytes(part) for part in tensors if isinstance(part, torch.Tensor)), default=0)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.itemsize * math.prod(int(concrete(size)) for size in tensor.shape)
