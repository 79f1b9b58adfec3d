"""Constants: the values in a graph that no input can change, evaluated in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from service.graph.precision import in_dtype
from service.graph.stored_tensors import attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

aten = torch.ops.aten

_SQUARE_ROOTS = {aten.sqrt.default, aten.rsqrt.default}


class Constants:
    """Answers, for a node, its value, the stored tensors behind it, and which were under a root.

    What is found out of a node is found out when it is first asked for and then kept; floating-point
    values are float64 from the stored tensors on, so that nothing is rounded twice.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        # The mutable state: what has been found out so far; a graph's constants never change.
        self._values: dict[fx.Node, Tensor] = {}
        self._constant: dict[fx.Node, bool] = {}
        self._sources: dict[fx.Node, list[str]] = {}
        self._under_root: dict[fx.Node, list[str]] = {}

    def __contains__(self, node: object) -> bool:
        return isinstance(node, fx.Node) and _settled(node, self._constant, self._is_constant)

    def value(self, node: fx.Node) -> Tensor:
        """The value of a constant node: float64 where it is floating-point."""
        if node.op == "get_attr":  # not kept: a second copy of the weights, in float64
            return self._stored(node)
        return _settled(node, self._values, self._computed, skip="get_attr")

    def sources(self, node: fx.Node) -> list[str]:
        """The names of the stored tensors that the constant is computed from."""
        return _settled(node, self._sources, self._its_sources)

    def under_root(self, node: fx.Node) -> list[str]:
        """Those of them whose (reciprocal) square root is taken: the mark of a variance."""
        return _settled(node, self._under_root, self._its_roots)

    def _is_constant(self, node: fx.Node) -> bool:
        return node.op == "get_attr" or (
            _is_deterministic(node) and all(self._constant[source] for source in node.all_input_nodes)
        )

    def _stored(self, node: fx.Node) -> Tensor:
        stored = attribute(self._module, str(node.target))
        return stored.double() if stored.is_floating_point() else stored

    def _computed(self, node: fx.Node) -> Tensor:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
        with torch.no_grad():
            computed: Tensor = node.target(  # type: ignore[operator]
                *in_dtype(args, torch.float64), **in_dtype(kwargs, torch.float64)
            )
        return computed

    def _its_sources(self, node: fx.Node) -> list[str]:
        if node.op == "get_attr":
            return [str(node.target)]
        return _unique(name for source in node.all_input_nodes for name in self._sources[source])

    def _its_roots(self, node: fx.Node) -> list[str]:
        if is_square_root(node):
            return [name for name in self.sources(node) if not name.startswith("lifted_tensor_")]
        return _unique(name for source in node.all_input_nodes for name in self._under_root[source])


def _settled(node: fx.Node, known: dict[fx.Node, _T], find: Callable[[fx.Node], _T], skip: str = "") -> _T:
    """What `find` says of a node, once it is known of all its inputs: each is asked once, however deep.

    Inputs whose op is `skip` are not asked.
    """
    pending = [] if node in known else [node]
    while pending:
        inputs = pending[-1].all_input_nodes
        unknown = [source for source in inputs if source not in known and source.op != skip]
        if unknown:
            pending += unknown
        elif (current := pending.pop()) not in known:
            known[current] = find(current)
    return known[node]


def is_square_root(node: fx.Node) -> bool:
    """Whether a call takes the (reciprocal) square root of something."""
    if node.target is aten.pow.Tensor_Scalar:
        return node.args[1] in (0.5, -0.5)
    return node.target in _SQUARE_ROOTS


def _is_deterministic(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and (
            not isinstance(node.target, OpOverload)
            or torch.Tag.nondeterministic_seeded not in node.target.tags
        )
        and isinstance(node.meta.get("val"), Tensor | tuple | list)
    )


def _unique(names: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(names))
