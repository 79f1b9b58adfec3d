"""The affine domain: values that are `scale * x + shift`, one scale and shift per channel."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.constants import Constants, owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

aten = torch.ops.aten

_BATCH_NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
_BATCH_STATISTICS = {aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit.default}


@dataclass(frozen=True)
class Affine:
    """`scale * x + shift` with float64 vectors `[C]` (or `[1]`, the same for every channel)."""

    scale: Tensor
    shift: Tensor

    def then(self, after: Affine) -> Affine:
        """This map followed by `after`."""
        return Affine(after.scale * self.scale, after.scale * self.shift + after.shift)


@dataclass(frozen=True)
class AffineChain:
    """Affine steps that follow each other with nobody else reading in between."""

    input: fx.Node
    output: fx.Node
    affine: Affine
    axis: int | None
    """The channel axis; None where scale and shift are the same for every channel."""
    norms: tuple[str, ...]
    """The norms among the steps, by module name, in order."""

    def extended(self, step: AffineChain) -> AffineChain | None:
        """This chain and `step` behind it, or None where they act on different axes."""
        axes = {self.axis, step.axis} - {None}
        if len(axes) > 1:
            return None
        norms = tuple(dict.fromkeys(self.norms + step.norms))
        axis = next(iter(axes), None)
        return AffineChain(self.input, step.output, self.affine.then(step.affine), axis, norms)


def chains(graph: fx.Graph, constants: Constants) -> list[AffineChain]:
    """Every maximal affine chain of the graph, in the order of computation."""
    open_chains: dict[fx.Node, AffineChain] = {}
    for node in graph.nodes:
        step = _step(node, constants)
        if step is None:
            continue
        before = open_chains.get(step.input)
        extended = before.extended(step) if before and len(value_users(step.input)) == 1 else None
        if extended:
            del open_chains[step.input]
        open_chains[node] = extended or step
    return list(open_chains.values())


def value_users(node: fx.Node) -> list[fx.Node]:
    """The nodes that read the values of `node`, not only its shape."""
    return [user for user in node.users if user.target is not aten.sym_size.int]


def batch_statistics_norms(graph: fx.Graph, constants: Constants) -> Iterator[fx.Node]:
    """The norms of the graph that normalise with the statistics of the batch they are given."""
    for node in graph.nodes:
        trains = node.target in _BATCH_STATISTICS or (node.target is aten.batch_norm.default and node.args[5])
        if trains and node not in constants and not isinstance(node.args[0].meta["val"].shape[0], int):
            yield node


def module_name(node: fx.Node) -> str:
    """The module of the original network that computes `node`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack and stack[-1][0] else node.name


def _step(node: fx.Node, constants: Constants) -> AffineChain | None:
    if node.op != "call_function" or node in constants:
        return None
    if node.target is operator.getitem:
        producer: Any = node.args[0]
        is_norm = producer.target in _BATCH_NORMS and node.args[1] == 0
        return _batch_norm(producer, node, constants) if is_norm else None
    if node.target is aten.batch_norm.default:
        return None if node.args[5] else _batch_norm(node, node, constants)
    return _arithmetic(node, constants)


def _batch_norm(norm: fx.Node, output: fx.Node, constants: Constants) -> AffineChain | None:
    """A BatchNorm node: `(x - mean) / sqrt(var + eps) * weight + bias`, along axis 1."""
    arguments: tuple[Any, ...] = norm.args
    x, weight, bias, mean, var = arguments[:5]
    if any(stored is not None and stored not in constants for stored in (weight, bias, mean, var)):
        return None
    eps = arguments[7] if norm.target is aten.batch_norm.default else arguments[6]
    scale = torch.rsqrt(constants.value(var) + eps)
    if weight is not None:
        scale = scale * constants.value(weight)
    shift = -constants.value(mean) * scale
    if bias is not None:
        shift = shift + constants.value(bias)
    name = owner(constants.sources(var)[0])
    return AffineChain(x, output, Affine(scale, shift), 1, (name,))


def _arithmetic(node: fx.Node, constants: Constants) -> AffineChain | None:
    """`x + c`, `x - c`, `c - x`, `x * c`, `x / c` and `-x` with a constant per channel."""
    rule = _ARITHMETIC.get(node.target)
    if rule is None or node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("rounding_mode"):
        return None
    operands = [*node.args, None][:2]
    varying = [position for position, operand in enumerate(operands) if _varies(operand, constants)]
    if len(varying) != 1:
        return None
    x, other = operands[varying[0]], operands[1 - varying[0]]
    found = _per_channel(x, other, constants)
    affine = found and rule(found[0], varying[0])
    if not found or not affine or not isinstance(x, fx.Node):
        return None
    return AffineChain(x, node, affine, found[1], _norm_names(other, constants))


def _varies(operand: object, constants: Constants) -> bool:
    return isinstance(operand, fx.Node) and operand not in constants


def _norm_names(operand: object, constants: Constants) -> tuple[str, ...]:
    if not isinstance(operand, fx.Node):
        return ()
    return tuple(dict.fromkeys(owner(name) for name in constants.under_root(operand)))


def _per_channel(x: object, other: object, constants: Constants) -> tuple[Tensor, int | None] | None:
    """The constant operand as a vector along one axis of x, and that axis; None where it is more."""
    value = x.meta.get("val") if isinstance(x, fx.Node) else None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if other is None or isinstance(other, int | float):
        return torch.tensor([float(other or 0)], dtype=torch.float64), None
    if not isinstance(other, fx.Node):
        return None
    vector = constants.value(other)
    if vector.dim() > value.dim() or not (vector.is_floating_point() or vector.numel() == 1):
        return None
    aligned = [1] * (value.dim() - vector.dim()) + list(vector.shape)
    axes = [axis for axis, size in enumerate(aligned) if size != 1]
    if len(axes) > 1 or any(aligned[axis] != value.shape[axis] for axis in axes):
        return None
    return vector.double().reshape(-1), (axes[0] if axes else None)


def _add(c: Tensor, _: int) -> Affine:
    return Affine(torch.ones_like(c), c)


def _sub(c: Tensor, position_of_x: int) -> Affine:
    return Affine(torch.ones_like(c), -c) if position_of_x == 0 else Affine(-torch.ones_like(c), c)


def _rsub(c: Tensor, position_of_x: int) -> Affine:
    return _sub(c, 1 - position_of_x)


def _mul(c: Tensor, _: int) -> Affine:
    return Affine(c, torch.zeros_like(c))


def _div(c: Tensor, position_of_x: int) -> Affine | None:
    return Affine(1 / c, torch.zeros_like(c)) if position_of_x == 0 else None


def _neg(c: Tensor, _: int) -> Affine:
    return Affine(-torch.ones_like(c), torch.zeros_like(c))


_ARITHMETIC: dict[Any, Callable[[Tensor, int], Affine | None]] = {
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: _sub,
    aten.sub.Scalar: _sub,
    aten.rsub.Scalar: _rsub,
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.neg.default: _neg,
}
