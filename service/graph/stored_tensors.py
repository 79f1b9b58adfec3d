"""Stored tensors: what a graph reads beside its input, by the names in the original network.

They are `get_attr` nodes, whose targets are those names.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, fx


def stored_names(graph: fx.Graph) -> list[str]:
    """The names of the stored tensors that the graph reads, each once, in the order of the graph."""
    return list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr"))


def stored_tensors(module: fx.GraphModule) -> dict[str, Tensor]:
    """By their names, in the order of the graph, the stored tensors that it reads; no copies."""
    return {name: attribute(module, name) for name in stored_names(module.graph)}


def attribute(module: fx.GraphModule, target: str) -> Tensor:
    """The stored tensor behind a `get_attr` node's target."""
    value: Tensor = operator.attrgetter(target)(module)
    return value
