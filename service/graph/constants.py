"""Constants: the values in a graph that no input can change, evaluated in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from service.graph.capture import attribute
from service.graph.precision import in_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable

aten = torch.ops.aten

_SQUARE_ROOTS = {aten.sqrt.default, aten.rsqrt.default}


class Constants:
    """Answers, for a node, its value, the stored tensors behind it, and which were under a root.

    A value is computed when it is first asked for and then kept; floating-point values are
    float64 from the stored tensors on, so that nothing is rounded twice.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        # The mutable state: what has been found out so far; a graph's constants never change.
        self._values: dict[fx.Node, Tensor] = {}
        self._constant: dict[fx.Node, bool] = {}

    def __contains__(self, node: object) -> bool:
        if not isinstance(node, fx.Node):
            return False
        if node not in self._constant:
            self._constant[node] = node.op == "get_attr" or (
                _is_deterministic(node) and all(source in self for source in node.all_input_nodes)
            )
        return self._constant[node]

    def value(self, node: fx.Node) -> Tensor:
        """The value of a constant node: float64 where it is floating-point."""
        if node.op == "get_attr":
            stored = attribute(self._module, str(node.target))
            return stored.double() if stored.is_floating_point() else stored
        if node not in self._values:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
            with torch.no_grad():
                self._values[node] = node.target(
                    *in_dtype(args, torch.float64), **in_dtype(kwargs, torch.float64)
                )  # type: ignore[operator]
        return self._values[node]

    def sources(self, node: fx.Node) -> list[str]:
        """The names of the stored tensors that the constant is computed from."""
        if node.op == "get_attr":
            return [str(node.target)]
        return _unique(name for source in node.all_input_nodes for name in self.sources(source))

    def under_root(self, node: fx.Node) -> list[str]:
        """Those of them whose (reciprocal) square root is taken: the mark of a variance."""
        if is_square_root(node):
            return [name for name in self.sources(node) if not name.startswith("lifted_tensor_")]
        return _unique(name for source in node.all_input_nodes for name in self.under_root(source))


def owner(tensor_name: str) -> str:
    """The module that a stored tensor belongs to: `layer1.bn` for `layer1.bn.running_var`."""
    return tensor_name.rpartition(".")[0] or tensor_name


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
