"""In-place calls, written as the functional calls that compute the same."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from service.errors import ModelRefused
from service.graph.identities import IDENTITIES

aten = torch.ops.aten

# Their results may share memory with an argument, although their schemas do not say so.
_UNDECLARED_VIEWS = {operator.getitem, aten.einsum.default}


class NotFunctional(Exception):
    """An in-place call whose effect on other values is not obvious; decompositions handle it."""


def changes_a_tensor(node: fx.Node) -> bool:
    """Whether the call changes one of its arguments."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def make_functional(graph: fx.Graph) -> None:
    """Replace every in-place call on an intermediate value by its functional counterpart.

    Raises `NotFunctional` where values may share memory with the changed one and are read later, and
    `ModelRefused` where einsum may have made one of them: no decomposition knows of those either.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not changes_a_tensor(node):
            continue
        changed, functional = node.args[0], _functional_counterpart(node.target)
        if functional is None or not isinstance(changed, fx.Node) or changed.op == "get_attr":
            raise NotFunctional
        later = [user for user in changed.users if order[user] > order[node]]
        _refuse_aliases(changed, node, order)
        node.target = functional
        for user in later:
            user.replace_input_with(changed, node)


def _refuse_aliases(changed: fx.Node, node: fx.Node, order: dict[fx.Node, int]) -> None:
    # What is made of the changed value afterwards reads `node`, and so the change.
    aliases = {alias for alias in _aliases(changed) - {changed} if order[alias] < order[node]}
    if any(alias.target is aten.einsum.default for alias in (changed, *aliases)):
        raise ModelRefused("the network changes in place what may be a view made by einsum")
    if any(alias.op == "get_attr" for alias in aliases):
        raise NotFunctional
    if any(order[user] > order[node] for alias in aliases for user in alias.users):
        raise NotFunctional


def _functional_counterpart(target: Any) -> OpOverload | None:
    packet = getattr(aten, target._opname.removesuffix("_"), None)
    overload = getattr(packet, target._overloadname, None)
    return overload if isinstance(overload, OpOverload) and not overload._schema.is_mutable else None


def _aliases(node: fx.Node) -> set[fx.Node]:
    """Every value that may share memory with `node`, itself included."""
    found, frontier = {node}, [node]
    while frontier:
        current = frontier.pop()
        related = [user for user in current.users if current in _viewed(user)] + _viewed(current)
        frontier += [other for other in related if other not in found]
        found.update(related)
    return found


def _viewed(node: fx.Node) -> list[fx.Node]:
    """The values whose memory the value of `node` may be."""
    if not _is_view(node):
        return []
    first = node.args[0]
    return [first] if isinstance(first, fx.Node) else node.all_input_nodes


def _is_view(node: fx.Node) -> bool:
    if node.target in _UNDECLARED_VIEWS or node.target in IDENTITIES:
        return True
    return isinstance(node.target, OpOverload) and any(
        returned.alias_info is not None for returned in node.target._schema.returns
    )
