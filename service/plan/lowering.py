"""Lowering: which runs of the folded graph one call can compute, and the record of what runs how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._ops import OpOverload

from service.graph.arguments import arguments
from service.graph.linear import LinearCall
from service.graph.names import module_name
from service.graph.shapes import shape_of
from service.plan.activations import Activation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

aten = torch.ops.aten


@dataclass(frozen=True)
class Step:
    """One call of a plan."""

    name: str
    """The module that makes the call in the original network; the call's own name where it is none's."""
    op: str
    epilogue: str
    """What the same call computes behind the operation, such as `add, relu`; empty: nothing."""
    shape: tuple[int, ...]
    """The output for one row, without its batch axis."""
    backend: str


@dataclass(frozen=True)
class Fusion:
    """A linear call with what follows it: `activation(call + other)`, as one call."""

    run: tuple[fx.Node, ...]
    """The nodes that it replaces, in order."""
    other: fx.Node | None = None
    activation: Activation = field(default_factory=Activation)

    @property
    def call(self) -> fx.Node:
        """The linear call."""
        return self.run[0]

    @property
    def output(self) -> fx.Node:
        """The last node, whose value the fused call gives."""
        return self.run[-1]

    @property
    def epilogue(self) -> str:
        """What follows the call, in words."""
        activation = "" if self.activation.name == "none" else str(self.activation)
        return ", ".join(filter(None, ["add" if self.other else "", activation]))


def fusion_at(call: fx.Node, order: Mapping[fx.Node, int], after_add: Collection[str] | None) -> Fusion:
    """The longest run behind a linear call that one epilogue can compute.

    `after_add` names the activations that may stand behind a sum; None where no sum may stand there.
    Of two linear calls that are added the later one takes the sum: the other value is there by then.
    """
    added = None if after_add is None else _sum_with(call, order)
    if added is None or after_add is None:
        return _activated(Fusion((call,)))
    total, other = added
    summed = Fusion((call, total), other)
    fusion = _activated(summed)
    return fusion if fusion.activation.name in after_add else summed


def step_of(fusion: Fusion, backend: str) -> Step:
    """The record of the call that computes a fusion."""
    call: Any = fusion.call
    return Step(
        module_name(call) or call.name,
        str(call.target._opname).removesuffix("_"),
        fusion.epilogue,
        tuple(shape_of(fusion.output)[1:]),
        backend,
    )


def steps(graph: fx.Graph, written: Mapping[fx.Node, Step | None]) -> tuple[Step, ...]:
    """The record of a lowered graph: what a backend wrote, None for its mere views, and ATen's calls."""
    return tuple(
        step
        for node in graph.nodes
        if isinstance(node.target, OpOverload) and isinstance(node.meta.get("val"), torch.Tensor)
        if (step := written[node] if node in written else step_of(Fusion((node,)), "aten"))
    )


def is_alike(one: fx.Node, other: fx.Node) -> bool:
    """Whether two values have the same shape, for any number of rows, and the same dtype."""
    a, b = one.meta["val"], other.meta["val"]
    return bool(a.dtype == b.dtype and [str(size) for size in a.shape] == [str(size) for size in b.shape])


def _activated(fusion: Fusion) -> Fusion:
    reader = _sole_reader(fusion.output)
    activation = Activation.at(reader) if reader else None
    if reader is None or activation is None:
        return fusion
    return Fusion((*fusion.run, reader), fusion.other, activation)


def _sum_with(call: fx.Node, order: Mapping[fx.Node, int]) -> tuple[fx.Node, fx.Node] | None:
    """The sum that is the only reader of `call`, and what is added there, of the same shape."""
    total = _sole_reader(call)
    if total is None or total.target is not aten.add.Tensor or arguments(total)["alpha"] != 1:
        return None
    others = [operand for operand in total.args[:2] if operand is not call]
    if len(others) != 1 or not isinstance(others[0], fx.Node) or others[0].op == "get_attr":
        return None
    other = others[0]
    if not is_alike(other, call):
        return None
    is_later = LinearCall.is_one(other) and _sole_reader(other) is total and order[other] > order[call]
    return None if is_later else (total, other)


def _sole_reader(node: fx.Node) -> fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].op == "call_function" else None
