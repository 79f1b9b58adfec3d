"""Activations: elementwise functions, as one ATen call or spelled out by several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from service.graph.arguments import arguments

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An elementwise function, in oneDNN's words."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""

    @staticmethod
    def at(node: fx.Node) -> Activation | None:
        """The activation that `node` is, or None."""
        rule = _ACTIVATIONS.get(node.target)
        if rule is None:
            return None
        _, *parameters = arguments(node).values()
        return None if any(isinstance(value, fx.Node) for value in parameters) else rule(*parameters)

    def __str__(self) -> str:
        values = [*(f"{number:g}" for number in self.scalars), *filter(None, [self.algorithm])]
        return f"{self.name}({', '.join(values)})" if values else self.name


def respell(graph: fx.Graph) -> None:
    """Write activations that several calls spell out as the one call that they are."""
    for node in list(graph.nodes):
        if node.target is not aten.mul.Tensor:
            continue
        for x, gate in (node.args, node.args[::-1]):
            target = _gated(x, gate)
            if target is not None:
                node.target, node.args, node.kwargs = target, (x,), {}
                break
    graph.eliminate_dead_code()


def _gated(x: Any, gate: Any) -> Any:
    """The function that `x * gate` is, where the gate is a function of the same x."""
    if not isinstance(gate, fx.Node) or not isinstance(x, fx.Node):
        return None
    if gate.target is aten.sigmoid.default and gate.args[0] is x:
        return aten.silu.default
    if gate.target is aten.hardsigmoid.default and gate.args[0] is x:
        return aten.hardswish.default
    return aten.hardswish.default if _is_hardsigmoid(gate, x) else None


def _is_hardsigmoid(gate: fx.Node, x: fx.Node) -> bool:
    """Whether `gate` is `clamp(x + 3, 0, 6) / 6`."""
    if gate.target is not aten.div.Tensor or gate.args[1] != 6 or not isinstance(gate.args[0], fx.Node):
        return False
    clamp = gate.args[0]
    moved: Any = clamp.args[0] if clamp.args else None
    return (
        Activation.at(clamp) == Activation("hardtanh", (0.0, 6.0))
        and isinstance(moved, fx.Node)
        and moved.target is aten.add.Tensor
        and moved.args == (x, 3)
        and arguments(moved)["alpha"] == 1
    )


def _clamp(low: float | None, high: float | None = None) -> Activation | None:
    if low is None or (high is None and low != 0) or (high is not None and low > high):
        return None
    return Activation("relu") if high is None else Activation("hardtanh", (float(low), float(high)))


_ACTIVATIONS: dict[Any, Callable[..., Activation | None]] = {
    aten.relu.default: lambda: Activation("relu"),
    aten.relu6.default: lambda: Activation("hardtanh", (0.0, 6.0)),
    aten.hardtanh.default: _clamp,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.hardswish.default: lambda: Activation("hardswish"),
    aten.hardsigmoid.default: lambda: Activation("hardsigmoid"),
    aten.silu.default: lambda: Activation("swish"),
    aten.sigmoid.default: lambda: Activation("sigmoid"),
    aten.tanh.default: lambda: Activation("tanh"),
    aten.leaky_relu.default: lambda slope: Activation("leaky_relu", (float(slope),)),
    aten.gelu.default: lambda approximate: Activation("gelu", (), approximate),
}
