"""The largest bucket: how many rows a plan computes at once where nobody asked for a number."""

from __future__ import annotations

import math

import torch
from torch import fx

from service.graph.shapes import shape_of

_FAST_BYTES = 32 << 20
"""The largest result of one call that a CPU computes fast and in little memory.

Caches hold about that much (docs/benchmarks.md, "Rows at once").
"""


def largest(graph: fx.Graph, at_most: int, *, precision: torch.dtype, device: torch.device) -> int:
    """How many rows of `graph` at once, up to `at_most`, are worth it on `device`; on a CPU a power of two.

    Once the results of a CPU's call are larger than 32 MiB, more rows take more memory, and for most networks
    that were measured more time each.
    """
    if device.type != "cpu":
        return at_most
    elements = max(math.prod(shape_of(node)) for node in graph.nodes if _is_result(node))
    rows = max(1, _FAST_BYTES // (elements * precision.itemsize))
    return min(at_most, 1 << (rows.bit_length() - 1))


def _is_result(node: fx.Node) -> bool:
    """Whether the value is one of rows, and not a stored tensor."""
    return node.op in ("placeholder", "call_function") and isinstance(node.meta.get("val"), torch.Tensor)
