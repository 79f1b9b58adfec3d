"""Norm inputs: the values in a captured graph that its norms normalise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.graph.chains import BATCH_NORMS, chains, step_at
from service.graph.constants import Constants

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import fx

    from service.graph.capture import CapturedGraph


def norm_inputs(captured: CapturedGraph, known: Container[str]) -> dict[str, list[fx.Node]]:
    """For each norm that is `known`, in the order of computation, what it reads: one node for each call.

    `known` are modules by their first names. One that is written out by hand must be one of which
    `written_norms` has found that a whole chain is what it amounts to.
    """
    graph, constants = captured.module.graph, Constants(captured.module)
    found: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        step = step_at(node, constants)
        if step is not None and step.reader.target in BATCH_NORMS:
            found.setdefault(step.norms[0].name, []).append(step.input)
    for chain in chains(graph, constants):
        name = chain.norms[0].name if len(chain.norms) == 1 else None
        if name is not None and name not in found:
            found[name] = [chain.input]
    order = {node: number for number, node in enumerate(graph.nodes)}
    in_order = sorted(found.items(), key=lambda item: order[item[1][0]])
    return {name: nodes for name, nodes in in_order if name in known}
