"""Capture: a network in evaluation mode as one functional ATen graph with a dynamic batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from service.errors import ModelRefused
from service.graph.export import decomposed, exported, let_go
from service.graph.identities import drop_identities
from service.graph.in_place import NotFunctional, changes_a_tensor, make_functional
from service.graph.names import first_tensor_names, name_calls
from service.graph.solitude import one_at_a_time
from service.graph.unlifting import inline_regions, unlifted

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

aten = torch.ops.aten

_DIVISIONS = {aten.div.Tensor_mode, aten.div.Scalar_mode}
# A view may not exist for other strides; a reshape then copies.
_LAYOUT_FREE: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten.view_as.default: aten.reshape_as.default,
}


@dataclass(frozen=True)
class CapturedGraph:
    """A network as `module`: one placeholder `[N, ...]`, one output tensor, ATen calls only.

    Stored tensors are `get_attr` nodes whose targets are the network's own parameter and buffer
    names. No node changes another's value.
    """

    module: fx.GraphModule
    example: Tensor
    """Two rows at least, `[N, ...]`."""


@one_at_a_time()
def capture(module: nn.Module, example: Tensor) -> CapturedGraph:
    """Capture `module` as it computes in evaluation mode; its training flag is left as it was.

    `example` is `[N, ...]`, any N: one row is repeated, because export would take a batch of one
    for a constant. Raises `ModelRefused` where the network cannot be exported, does not take one
    tensor to one tensor, or changes its own buffers at inference.
    """
    rows = example if len(example) > 1 else example.repeat(2, *[1] * (example.dim() - 1))
    program = exported(module, rows)
    try:
        graph_module = _functional(program, first_tensor_names(module))
    finally:
        let_go(program)
    graph = graph_module.graph
    _refuse_unservable(graph)
    drop_identities(graph)
    _forget_strides(graph)
    _say_dtypes(graph)
    name_calls(graph, module)
    graph.eliminate_dead_code()
    graph_module.recompile()
    return CapturedGraph(graph_module, rows)


def _functional(program: ExportedProgram, first_names: dict[str, str]) -> fx.GraphModule:
    inline_regions(program.graph_module)
    # Before anything else: decompositions take a dropout for a copy, which in evaluation it is not.
    drop_identities(program.graph, keep_answer=True)
    try:
        graph_module = unlifted(program, first_names)
        make_functional(graph_module.graph)
    except NotFunctional:
        graph_module = unlifted(decomposed(program), first_names)
    return graph_module


def _refuse_unservable(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if changes_a_tensor(node) or _keeps_statistics(node):
            raise ModelRefused(f"the network changes a stored tensor at inference ({node.target})")
        if _may_trap(node):
            raise ModelRefused(f"the network divides whole numbers and cuts the rest off ({node.target})")


def _keeps_statistics(node: fx.Node) -> bool:
    """Whether an instance norm writes what it sees into running statistics; its schema does not say so.

    Of a batch norm that does, the fold says which one it is.
    """
    if node.target is not aten.instance_norm.default:
        return False
    running_mean, uses_input = node.args[3], node.args[5]
    return bool(uses_input) and running_mean is not None


def _may_trap(node: fx.Node) -> bool:
    """Whether a division ends the process where the smallest whole number is divided by -1."""
    value = node.meta.get("val")
    return (
        node.target in _DIVISIONS
        and node.kwargs.get("rounding_mode") == "trunc"
        and isinstance(value, Tensor)
        and not value.is_floating_point()
    )


def _forget_strides(graph: fx.Graph) -> None:
    """Respell what depends on how a value lies in memory: a plan may lay it otherwise than the export did."""
    for node in graph.nodes:
        node.target = _LAYOUT_FREE.get(node.target, node.target)
        if node.target is aten.as_strided.default:
            raise ModelRefused("the network reads memory by strides (as_strided)")
        if node.target is aten.view_as_complex.default:
            with graph.inserting_before(node):
                compact = graph.call_function(aten.contiguous.default, node.args)
            compact.meta, node.args = dict(node.args[0].meta), (compact,)


def _say_dtypes(graph: fx.Graph) -> None:
    """Let calls that make a tensor say its dtype, which they leave to torch's default; precision sets it."""
    for node in graph.nodes:
        made = node.meta.get("val")
        takes_tensors = any(isinstance(source.meta.get("val"), Tensor) for source in node.all_input_nodes)
        if not isinstance(node.target, OpOverload) or not isinstance(made, Tensor) or takes_tensors:
            continue
        if any(argument.name == "dtype" for argument in node.target._schema.arguments):
            given = {key: value for key, value in node.kwargs.items() if value is not None}
            node.kwargs = {"dtype": made.dtype, **given}
