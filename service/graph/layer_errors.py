"""Layer errors: how far the folded network is from the unfolded one at the output of each norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx

from service.graph.parity import relative_error
from service.graph.precision import Computation

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.graph.fold import FoldedGraph
    from service.graph.parity import Reference

_LOOKED_AT = 4096
"""Values of a layer that are compared, evenly spread over it."""
_SAME = 1e-6
_ANSWER = "answer"


class LayerError(NamedTuple):
    """The error at one norm, or at the first place behind it that both networks have."""

    error: float
    """The largest absolute difference over the largest absolute value of the unfolded network."""
    at: str
    """A norm's name, or `answer`."""


@torch.inference_mode()
def layer_errors(reference: Reference, folded: FoldedGraph, precision: torch.dtype) -> dict[str, LayerError]:
    """By a norm's name: the folded graph in `precision` against the captured one in float64, on one row.

    The row is the probe's first. Both graphs run as ATen calls, and up to 4,096 values of a layer are
    compared. Where the folded graph has no value that in exact arithmetic is the norm's output, the next
    place behind it counts that has one.
    """
    captured, row = reference.captured.module, reference.rows[:1]
    places = {here: there for here, there in folded.places.values() if there}
    places[_answer(captured.graph).name] = _answer(folded.module.graph).name
    exact = _seen(captured, row, torch.float64, places)
    same = _seen(folded.module, row, torch.float64, places.values())
    served = _seen(folded.module, row, precision, places.values())
    errors = {
        here: relative_error(exact[here], served[there])
        for here, there in places.items()
        if here in exact and there in same and relative_error(exact[here], same[there]) <= _SAME
    }
    names = {here: name for name, (here, _) in reversed(list(folded.places.items()))}
    names[_answer(captured.graph).name] = _ANSWER
    nodes = {node.name: node for node in captured.graph.nodes}
    return {
        name: LayerError(errors[at], name if at == here else names[at])
        for name, (here, _) in folded.places.items()
        if here in nodes and (at := _next(nodes[here], errors)) is not None
    }


def _answer(graph: fx.Graph) -> fx.Node:
    """The node whose value the graph answers."""
    (answer,) = graph.output_node().all_input_nodes
    return answer


def _next(start: fx.Node, wanted: Collection[str]) -> str | None:
    """The first node, `start` or one that depends on it, that is wanted."""
    dependent, node = {start}, start
    while node.op != "output":
        if not dependent.isdisjoint((node, *node.all_input_nodes)):
            if node.name in wanted:
                return node.name
            dependent.add(node)
        node = node.next
    return None


def _seen(
    module: fx.GraphModule, row: Tensor, dtype: torch.dtype, nodes: Collection[str]
) -> dict[str, Tensor]:
    """Values of those nodes in a computation in `dtype`, float64 `[up to 4096]`."""
    looking = _Looking(module, dtype, frozenset(nodes))
    looking.run(row.to(dtype))
    return looking.seen


class _Looking(Computation):
    """A computation that keeps some values of some nodes."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype, nodes: frozenset[str]) -> None:
        super().__init__(module, dtype)
        self._nodes = nodes
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._nodes and isinstance(value, Tensor):
            flat = value.reshape(-1)
            self.seen[n.name] = flat[:: -(-len(flat) // _LOOKED_AT)].double()
        return value
