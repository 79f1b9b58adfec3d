"""Layer errors: how far the folded network is from the unfolded one at the output of each norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from service.graph.parity import relative_error
from service.graph.precision import compute
from service.graph.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor, fx

    from service.graph.fold import FoldedGraph
    from service.graph.reference import Reference

_SAME = 1e-3
"""Far above what rounding to float32 makes, and far below what a map makes that is still to come."""
_ANSWER = "answer"


class LayerError(NamedTuple):
    """The error at one norm, or at the first place behind it that both networks have."""

    error: float
    """The largest absolute difference over the largest absolute value in float64."""
    at: str
    """A norm's name, or `answer`."""


@torch.inference_mode()
def layer_errors(reference: Reference, folded: FoldedGraph, precision: torch.dtype) -> dict[str, LayerError]:
    """By a norm's name: the folded graph in `precision` against itself in float64, on a row.

    The row is the reference's first. In float64 the folded graph is the unfolded one, as its answers have
    shown. Both run as ATen calls, and up to 4,096 values of a layer are compared. A place counts only where
    the unfolded graph, in float32, has the same values, so that they are a norm's output; where they are
    not, the next place behind it counts.
    """
    captured = reference.captured.module
    places = {here: there for here, there in folded.places.values() if there}
    places[_answer(captured.graph).name] = _answer(folded.module.graph).name
    unfolded, served = Samples(places, 1), Samples(places.values(), 1)
    compute(captured, reference.rows[:1], torch.float32, unfolded)
    compute(folded.module, reference.rows[:1], precision, served)
    errors = {
        here: relative_error(folded.exact[there], served.values[there])
        for here, there in places.items()
        if there in folded.exact and _same(folded.exact[there], unfolded.values.get(here))
    }
    names = {here: name for name, (here, _) in reversed(list(folded.places.items()))}
    names[_answer(captured.graph).name] = _ANSWER
    nodes = {node.name: node for node in captured.graph.nodes}
    return {
        name: LayerError(errors[at], name if at == here else names[at])
        for name, (here, _) in folded.places.items()
        if here in nodes and (at := _next(nodes[here], errors)) is not None
    }


def _same(exact: Tensor, found: Tensor | None) -> bool:
    """Whether they differ by float32's rounding at most."""
    return found is not None and relative_error(exact, found) <= _SAME


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
