"""Precision: one graph, computed in one dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from service.graph.stored_tensors import stored_tensors

if TYPE_CHECKING:
    from service.graph.samples import Samples


def astype(module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A copy of the graph that computes in `dtype`; integer tensors stay integers, and no memory is shared.

    Casts that the network itself makes to a floating-point dtype are made to `dtype` instead.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        node.args, node.kwargs = in_dtype(node.args, dtype), in_dtype(node.kwargs, dtype)
    tensors = {name: _cast(tensor, dtype) for name, tensor in stored_tensors(module).items()}
    return fx.GraphModule(tensors, graph)


def compute(
    module: fx.GraphModule, rows: Tensor, dtype: torch.dtype, samples: Samples | None = None
) -> Tensor:
    """What `astype(module, dtype)` answers to floating-point `rows` `[N, ...]`, without the copy.

    A stored tensor is cast where it is read and forgotten behind it, so that a network never lies in
    memory twice. `samples` are taken on the way.
    """
    answer: Tensor = Computation(module, dtype, samples).run(rows.to(dtype))
    return answer


class Computation(fx.Interpreter):
    """A graph that runs in one dtype; what it reads is cast when it is read."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype, samples: Samples | None = None) -> None:
        super().__init__(module)
        self._dtype = dtype
        self._samples = samples
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self._samples is not None:
            self._samples.take(n.name, value)
        return value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = fx.node.map_aggregate((args, kwargs), self._in_dtype)
        return super().call_function(target, args, kwargs)

    def _in_dtype(self, argument: Any) -> Any:
        if isinstance(argument, Tensor) and argument.is_floating_point():
            return argument.to(self._dtype)
        return in_dtype(argument, self._dtype)


def in_dtype(argument: Any, dtype: torch.dtype) -> Any:
    """The arguments of a call with every floating-point dtype among them replaced."""
    if isinstance(argument, torch.dtype):
        return dtype if argument.is_floating_point else argument
    if isinstance(argument, list | tuple):
        return type(argument)([in_dtype(item, dtype) for item in argument])
    if isinstance(argument, dict):
        return {key: in_dtype(item, dtype) for key, item in argument.items()}
    return argument


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
