"""Threads: how many are worth it for a graph, where nobody asked for a number.

Threads that compute in step wait for each other at the end of every call, some microseconds each time on free
cores and milliseconds on busy ones. The digits network (3.0 M multiply-adds a row, 250 microseconds on one
thread of the Zen 3 cores that this was measured on) took longer on two at every size of batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.graph.linear import LinearCall
from service.plan.small import multiply_adds

if TYPE_CHECKING:
    from torch import fx

_EACH = 10_000_000
"""Multiply-adds of a row that keep one thread busy for about half a millisecond."""


def worthwhile(graph: fx.Graph, at_most: int) -> int:
    """How many threads, from 1 up to `at_most`, have enough to do in one row of `graph`."""
    work = sum(multiply_adds(node) for node in graph.nodes if LinearCall.is_one(node))
    return max(1, min(at_most, work // _EACH))
