"""Surgery: a captured graph while it is being changed, and the changes that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from service.graph.canonical import canonicalise
from service.graph.chains import value_users
from service.graph.constants import Constants
from service.graph.linear import LinearCall, set_weights
from service.graph.names import module_name
from service.graph.stored_tensors import attribute, stored_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.fx.node import Argument

    from service.graph.affine import Affine
    from service.graph.capture import CapturedGraph
    from service.graph.pointwise import Clamp

aten = torch.ops.aten

TINY = 1e-30
"""Folded weights below become 0: denormal ones slow a CPU down, tenfold where they are many."""


class NotFoldable(Exception):
    """Why a norm cannot go where it was tried, in words for the report."""


class Surgery:
    """A copy of a captured graph that is being folded; stored tensors are only ever added."""

    def __init__(self, captured: CapturedGraph, precision: torch.dtype = torch.float32) -> None:
        self._largest = torch.finfo(precision).max
        self.graph = fx.Graph()
        self.graph.output(self.graph.graph_copy(captured.module.graph, {}))
        self._module = fx.GraphModule(captured.module, self.graph)
        self.graph = self._module.graph
        self.constants = Constants(self._module)
        canonicalise(self.graph, self.constants)
        # The mutable state beside the graph: where the value of a replaced node is read now, and by a linear
        # call's name which of its weights, that were not 0, became 0.
        self._moved: dict[fx.Node, fx.Node] = {}
        self.flushed: dict[str, Tensor] = {}

    def current(self, node: fx.Node) -> fx.Node:
        """The node that holds now what `node` held at first."""
        while node in self._moved:
            node = self._moved[node]
        return node

    def replace(self, node: fx.Node, value: fx.Node) -> None:
        """Let everybody who reads `node` read `value`, and forget what nobody reads any more."""
        node.replace_all_uses_with(value)
        self._moved[node] = value
        self._erase_unread(node)

    def stored(self, name: str, value: Tensor) -> fx.Node:
        """A node that reads `value`, stored under a name that no module of the network has."""
        target, number = f"_folded_{name}", 0
        while hasattr(self._module, target):
            number += 1
            target = f"_folded_{name}_{number}"
        self._module.register_buffer(target, value)
        node = self.graph.get_attr(target)
        node.meta["val"] = value.to("meta")  # metadata is copied on and on, up to the plan's
        return node

    def fitting(self, linear: LinearCall, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A folded weight and bias; raises `NotFoldable` where one is too large."""
        self.require_fit(f"the weights of {linear.name}", weight, bias)
        return weight, bias

    def require_fit(self, what: str, *tensors: Tensor) -> None:
        """Raise `NotFoldable` where a number is too large for the serving precision, or none at all."""
        if not all(bool((tensor.abs() <= self._largest).all()) for tensor in tensors):
            raise NotFoldable(f"{what} would overflow the serving precision")

    def give_constant(self, constant: fx.Node, value: Tensor, reader: fx.Node) -> None:
        """Let `reader` read another value where it reads a constant."""
        with self.graph.inserting_before(reader):
            reader.replace_input_with(constant, self.stored(f"{constant.name}_mapped", value))

    def give_weights(self, linear: LinearCall, weight: Tensor, bias: Tensor) -> None:
        """Let a linear call compute with another weight, whose tiny numbers become 0, and bias."""
        node, tiny = linear.node, weight.abs() < TINY
        weight, flushed = torch.where(tiny, 0.0, weight), tiny & (weight != 0)
        if bool(flushed.any()):
            self.flushed[node.name] = self.flushed.get(node.name, flushed) | flushed
        with self.graph.inserting_before(node):
            set_weights(
                node, self.stored(f"{node.name}_weight", weight), self.stored(f"{node.name}_bias", bias)
            )

    def add_map(self, linear: LinearCall, constant: Tensor) -> None:
        """Let a linear call be followed by the addition of a constant of the shape of its output."""
        node = self.current(linear.node)  # behind what other norms have added already
        with self.graph.inserting_after(node):
            stored = self.stored(f"{node.name}_border", constant)
        with self.graph.inserting_after(stored):
            total = self.graph.call_function(aten.add.Tensor, (node, stored))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
        self._moved[node] = total

    def write_affine(self, value: fx.Node, affine: Affine, before: fx.Node) -> fx.Node:
        """A node that computes `shift + value * scale` in one pass."""
        with self.graph.inserting_before(before):
            scale = self.stored(f"{before.name}_scale", affine.scale)
            shift = self.stored(f"{before.name}_shift", affine.shift)
            kept = self.graph.call_function(aten.addcmul.default, (shift, value, scale))
        kept.meta = dict(before.meta)
        return kept

    def write_clamp(self, value: fx.Node, clamp: Clamp, in_place_of: fx.Node) -> fx.Node:
        """A node that clamps `value` per channel; `value` itself where no bound is finite."""
        with self.graph.inserting_before(in_place_of):
            bounds: dict[str, Argument] = {
                name: self.stored(f"{in_place_of.name}_{name}", bound)
                for name, bound in (("min", clamp.low), ("max", clamp.high))
                if bool(bound.isfinite().any())
            }
            if not bounds:
                return value
            node = self.graph.call_function(aten.clamp.Tensor, (value,), bounds)
        node.meta = dict(in_place_of.meta)
        return node

    def finished(self) -> fx.GraphModule:
        """The graph with what only depends on stored tensors evaluated, and unused tensors left out."""
        for node in list(self.graph.nodes):
            is_read = any(user not in self.constants for user in node.users)
            if node.op == "call_function" and node in self.constants and is_read:
                with self.graph.inserting_before(node):
                    node.replace_all_uses_with(self.stored(node.name, self.constants.value(node)))
        self.graph.eliminate_dead_code()
        tensors = {name: attribute(self._module, name) for name in stored_names(self.graph)}
        return fx.GraphModule(tensors, self.graph)

    def _erase_unread(self, node: fx.Node) -> None:
        frontier = [node]
        while frontier:
            unread = frontier.pop()
            if unread.users or unread.op != "call_function":
                continue
            frontier = [source for source in frontier if source is not unread] + unread.all_input_nodes
            self.graph.erase_node(unread)


class Changes:
    """Changes that are made together or not at all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._price = 0
        self._changes: list[Callable[[], None]] = []
        self._values: set[fx.Node] = set()
        self.partners: list[str] = []
        """The layers that take part, in the original network's names."""

    def enter(self, value: fx.Node) -> None:
        """Mark a value as taking part; raises `NotFoldable` where it does already."""
        if value in self._values:
            raise NotFoldable(f"{described(value)} would have to take it twice")
        self._values.add(value)

    def plan(self, change: Callable[[], None], partner: str | None = None) -> None:
        """Add one change; one that held the attempt would keep its weights in memory until a collection."""
        self._changes.append(change)
        if partner is not None and partner not in self.partners:
            self.partners.append(partner)

    def pay(self, elements: int, what: str) -> None:
        """Add to the price, in elements of one row; raises `NotFoldable` past the limit."""
        self._price += elements
        if self._price > self._limit:
            raise NotFoldable(f"{what}, which is slower than the norm")

    def make(self) -> None:
        """Make them all."""
        for change in self._changes:
            change()


def sole_reader(value: fx.Node, reader: fx.Node) -> None:
    """Raise `NotFoldable` where anybody but `reader` reads `value`."""
    others = [user for user in value_users(value) if user is not reader]
    if others:
        listed = ", ".join(described(other) for other in others[:3])
        raise NotFoldable(f"the output of {described(value)} is also read by {listed}")


def described(node: fx.Node) -> str:
    """A node for the person who wrote the network: its module and what it computes."""
    if node.op == "placeholder":
        return "the network's input"
    if node.op == "output":
        return "the network's output"
    kind = str(getattr(node.target, "_opname", node.name))
    return f"{module_name(node) or node.name} ({kind})"
