"""Price: what a fold adds to the work of a network, and what the norm itself costs.

The unit is an element of one row in one more pass; `benchmarks/folding.py` holds the passes against each
other. An activation behind a convolution or a sum rides in its epilogue, one behind a kept norm in the
norm's own pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from service.graph.chains import value_users
from service.graph.linear import LinearCall
from service.graph.shapes import shape_of
from service.graph.sums import is_sum

if TYPE_CHECKING:
    from torch import fx

    from service.graph.chains import AffineChain

aten = torch.ops.aten

_ACTIVATIONS: set[Any] = {
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp.Tensor,
    aten.clamp_min.default,
    aten.leaky_relu.default,
    aten.silu.default,
    aten.gelu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.elu.default,
    aten.mish.default,
}


def of_norm(chain: AffineChain) -> int:
    """One pass; nothing where an activation follows, which would be a pass of its own without it."""
    return 0 if _is_activated(chain.output) else _elements(chain.output)


def of_clamp(activation: fx.Node) -> int:
    """What it costs to give an activation bounds per channel: its place in an epilogue, if it has one."""
    source = activation.all_input_nodes[0]
    rides = (LinearCall.is_one(source) or is_sum(source)) and len(value_users(source)) == 1
    return _elements(activation) if rides and activation.target is not aten.clamp.Tensor else 0


def of_map(linear: fx.Node) -> int:
    """What it costs to add a map to an output: a pass, and another for the epilogue that follows no more."""
    return _elements(linear) * (2 if _is_activated(linear) else 1)


def _is_activated(value: fx.Node) -> bool:
    readers = value_users(value)
    return len(readers) == 1 and readers[0].target in _ACTIVATIONS


def _elements(value: fx.Node) -> int:
    return torch.Size(shape_of(value)).numel()
