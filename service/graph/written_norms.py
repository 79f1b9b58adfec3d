"""Norms that a network writes out by hand, as layers of ours: found in the graph, and shown as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from service.graph.chains import chains
from service.graph.constants import Constants, is_square_root
from service.graph.names import owner
from service.graph.stored_tensors import stored_tensors
from service.network.batch_norm import BatchNorm

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import Tensor

    from service.graph.affine import Affine
    from service.graph.capture import CapturedGraph

_NAMES = {
    "running_mean": ("running_mean", "moving_mean", "mean", "mu"),
    "running_var": ("running_var", "moving_var", "moving_variance", "variance", "var"),
    "weight": ("weight", "gamma", "scale"),
    "bias": ("bias", "beta", "shift", "offset"),
}
_DIGITS = 6
_EXACT = 1e-6


def written_norms(captured: CapturedGraph, known: Container[str]) -> dict[str, BatchNorm]:
    """The hand-written norms of a graph by their modules' names, but for those that are `known`.

    A module counts whose tensors have the usual names and amount, with some eps, to just the scale and shift
    that the graph applies; so nothing is shown that is not so. What no graph says, the momentum, is None.
    """
    graph = captured.module.graph
    if not any(is_square_root(node) for node in graph.nodes):
        return {}
    found: dict[str, BatchNorm] = {}
    for chain in chains(graph, Constants(captured.module)):
        names = {norm.name for norm in chain.norms} - {*found}
        if len(chain.norms) == 1 and names and not any(name in known for name in names):
            (name,) = names
            norm = _norm(_vectors(captured, name), chain.affine)
            if norm is not None:
                found[name] = norm
    return found


def _vectors(captured: CapturedGraph, module: str) -> dict[str, Tensor]:
    """What a module stores, by what it is in a norm."""
    leaves = {
        name.removeprefix(f"{module}."): tensor.detach()
        for name, tensor in stored_tensors(captured.module).items()
        if owner(name) == module
    }
    return {
        vector: leaves[leaf].flatten() for vector, known in _NAMES.items() for leaf in known if leaf in leaves
    }


def _norm(vectors: dict[str, Tensor], affine: Affine) -> BatchNorm | None:
    """A layer with these vectors, where it is the affine map; else None."""
    mean, var = vectors.get("running_mean"), vectors.get("running_var")
    if mean is None or var is None or len({len(vector) for vector in vectors.values()}) != 1:
        return None
    applied = affine.vectors(next(iter(affine.axes), 1), len(var)) if len(affine.axes) < 2 else None
    if applied is None:
        return None
    scale, shift = applied
    weight = vectors.get("weight", torch.ones(len(var))).double()
    bias = vectors.get("bias", torch.zeros(len(var))).double()
    eps = _eps(weight, scale, var.double())
    expected = weight * torch.rsqrt(var.double() + eps)
    pairs = (scale, expected), (shift, bias - mean.double() * expected)
    if not all(torch.allclose(got, wanted, rtol=_EXACT, atol=1e-12) for got, wanted in pairs):
        return None
    norm = BatchNorm(len(var), eps, None, "weight" in vectors, device="meta")
    norm._parameters = {}
    norm._buffers = {**dict.fromkeys((*_NAMES, "num_batches_tracked")), **vectors}
    return norm.eval()


def _eps(weight: Tensor, scale: Tensor, var: Tensor) -> float:
    """The eps that makes the scale of weight and variance, to six digits."""
    each = ((weight / scale).square() - var)[scale != 0]
    median = float(each.median()) if len(each) else 0.0
    return float(f"{max(median, 0.0):.{_DIGITS}g}")
