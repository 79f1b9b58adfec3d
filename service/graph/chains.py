"""Affine chains: steps `scale * x + shift` with a constant scale and shift, as networks write them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx

from service.graph.affine import Affine
from service.graph.names import module_name, owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.graph.constants import Constants

aten = torch.ops.aten

SHAPED_LIKE = {aten.reshape_as.default, aten.view_as.default, aten.expand_as.default}
"""Calls that read values from their first argument and a shape from their second."""

BATCH_NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
"""Calls whose arguments begin with the input, weight, bias, running mean and running variance."""
_BATCH_STATISTICS = {aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit.default}


class NormCall(NamedTuple):
    """One call of a norm; a module that is called twice makes two."""

    name: str
    """The module, by its first name in the original network."""
    call: str
    """What tells this call from others of the same module."""


@dataclass(frozen=True)
class AffineChain:
    """Affine steps that follow each other with nobody else reading in between."""

    input: fx.Node
    reader: fx.Node
    """The first step, which reads the input."""
    output: fx.Node
    """The last step."""
    affine: Affine
    norms: tuple[NormCall, ...]
    """The norms among the steps, in order."""

    def extended(self, step: AffineChain) -> AffineChain | None:
        """This chain and `step` behind it, or None where they act on different axes."""
        if len(self.affine.axes | step.affine.axes) > 1:
            return None
        norms = tuple(dict.fromkeys(self.norms + step.norms))
        return AffineChain(self.input, self.reader, step.output, self.affine.then(step.affine), norms)


def chains(graph: fx.Graph, constants: Constants) -> list[AffineChain]:
    """Every maximal affine chain of the graph, in the order of computation."""
    open_chains: dict[fx.Node, AffineChain] = {}
    for node in graph.nodes:
        step = step_at(node, constants)
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
    return [user for user in node.users if not _reads_shape_only(user, node)]


def _reads_shape_only(user: fx.Node, node: fx.Node) -> bool:
    return user.target is aten.sym_size.int or (user.target in SHAPED_LIKE and user.args[0] is not node)


def batch_statistics_norms(graph: fx.Graph, constants: Constants) -> Iterator[fx.Node]:
    """The norms of the graph that normalise with the statistics of the batch they are given."""
    for node in graph.nodes:
        trains = node.target in _BATCH_STATISTICS or (node.target is aten.batch_norm.default and node.args[5])
        if trains and node not in constants and not isinstance(node.args[0].meta["val"].shape[0], int):
            yield node


def step_at(node: fx.Node, constants: Constants) -> AffineChain | None:
    """The affine step that ends at `node`, or None where it is no such step."""
    if node.op != "call_function" or node in constants:
        return None
    if node.target is operator.getitem:
        producer: Any = node.args[0]
        is_norm = producer.target in BATCH_NORMS and node.args[1] == 0
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
    sources = constants.sources(var)
    name = owner(sources[0]) if sources else module_name(norm) or norm.name
    affine = Affine.along(1, output.meta["val"].dim(), scale, shift)
    return AffineChain(x, norm, output, affine, (NormCall(name, norm.name),))


def _arithmetic(node: fx.Node, constants: Constants) -> AffineChain | None:
    """`x + c`, `x - c`, `c - x`, `x * c`, `x / c` and `-x` with a constant per channel."""
    rule = _ARITHMETIC.get(node.target)
    if rule is None or _alpha(node) != 1 or node.kwargs.get("rounding_mode"):
        return None
    operands = [*node.args, None][:2]
    varying = [position for position, operand in enumerate(operands) if _varies(operand, constants)]
    if len(varying) != 1:
        return None
    x, other = operands[varying[0]], operands[1 - varying[0]]
    constant = _broadcast(x, other, constants)
    affine = None if constant is None else rule(constant, varying[0])
    if affine is None or not isinstance(x, fx.Node):
        return None
    return AffineChain(x, node, node, affine, _norms(node, other, constants))


def _alpha(node: fx.Node) -> object:
    """The factor of the second operand of a sum or difference."""
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)


def _varies(operand: object, constants: Constants) -> bool:
    return isinstance(operand, fx.Node) and operand not in constants


def _norms(node: fx.Node, operand: object, constants: Constants) -> tuple[NormCall, ...]:
    """The norms that a written-out step belongs to: those whose variance's root is in the constant."""
    if not isinstance(operand, fx.Node):
        return ()
    call = next(reversed(node.meta.get("nn_module_stack", {})), "")  # torch.export tells calls apart there
    return tuple(dict.fromkeys(NormCall(owner(name), call) for name in constants.under_root(operand)))


def _broadcast(x: object, other: object, constants: Constants) -> Tensor | None:
    """The constant operand, with the rank of x; None where it is no number per channel."""
    value = x.meta.get("val") if isinstance(x, fx.Node) else None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if other is None or isinstance(other, int | float):
        return torch.full([1] * value.dim(), float(other or 0), dtype=torch.float64)
    if not isinstance(other, fx.Node):
        return None
    constant = constants.value(other)
    if constant.dim() > value.dim() or not (constant.is_floating_point() or constant.numel() == 1):
        return None
    constant = constant.double().reshape([1] * (value.dim() - constant.dim()) + list(constant.shape))
    axes = [axis for axis, size in enumerate(constant.shape) if size != 1]
    if len(axes) > 1 or any(constant.shape[axis] != value.shape[axis] for axis in axes):
        return None
    return constant


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
