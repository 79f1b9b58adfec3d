"""Readers: what directly reads a norm's output."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from service.graph.chains import BATCH_NORMS, chains, step_at, value_users
from service.graph.constants import Constants
from service.graph.pointwise import Clamp

if TYPE_CHECKING:
    from torch import fx

    from service.graph.capture import CapturedGraph

aten = torch.ops.aten

_ACTIVATIONS: set[Any] = {
    aten.silu.default,
    aten.gelu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.mish.default,
    aten.softplus.default,
}


def activations(captured: CapturedGraph) -> dict[str, str]:
    """By a norm's name the activation that alone reads its output, where one does.

    That is `relu`, `relu6`, or another activation's ATen name; a norm that is called several times must be
    followed by the same each time.
    """
    constants = Constants(captured.module)
    found = {
        name: {_activation(output, constants) for output in outputs}
        for name, outputs in _outputs(captured.module.graph, constants).items()
    }
    return {name: only for name, kinds in found.items() if len(kinds) == 1 and (only := kinds.pop())}


def _outputs(graph: fx.Graph, constants: Constants) -> dict[str, list[fx.Node]]:
    """The values that each norm computes, one for each call."""
    outputs: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        step = step_at(node, constants)
        if step is not None and step.norms and step.reader.target in BATCH_NORMS:
            outputs[step.norms[0].name].append(node)
    layers = set(outputs)
    for chain in chains(graph, constants):  # norms that are written out are whole chains
        if len(chain.norms) == 1 and chain.norms[0].name not in layers:
            outputs[chain.norms[0].name].append(chain.output)
    return outputs


def _activation(output: fx.Node, constants: Constants) -> str | None:
    """The activation that every reader of a value is."""
    kinds = {_kind(reader, constants) for reader in value_users(output)}
    return kinds.pop() if len(kinds) == 1 else None


def _kind(reader: fx.Node, constants: Constants) -> str | None:
    clamp = Clamp.at(reader, constants)
    if clamp is not None:
        return _rectifier(clamp)
    return str(reader.target._opname) if reader.target in _ACTIVATIONS else None  # type: ignore[union-attr]


def _rectifier(clamp: Clamp) -> str | None:
    if bool((clamp.low != 0).any()):
        return None
    if bool((clamp.high == 6).all()):
        return "relu6"
    return "relu" if bool(clamp.high.isinf().all()) else None
