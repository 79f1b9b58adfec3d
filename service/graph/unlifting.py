"""Unlifting: an exported program as one graph that holds its stored tensors.

An export makes inputs of stored tensors and calls of the regions in which gradients or autocast are off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import OutputKind

from service.errors import ModelRefused
from service.graph.export import quiet
from service.graph.stored_tensors import stored_names

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
# Calls of a graph of its own, and where among their arguments that stands.
_REGIONS: dict[Any, int] = {_AUTOCAST: 4, torch.ops.higher_order.wrap_with_set_grad_enabled: 1}


def unlifted(program: ExportedProgram, first_names: dict[str, str]) -> fx.GraphModule:
    """The program's graph with its lifted parameters, buffers and constants as attributes again.

    `first_names` are those of the stored tensors. Raises `ModelRefused` where the program does not take
    one tensor to one tensor of numbers, changes a stored tensor, or holds a region that is left.
    """
    signature = program.graph_signature
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {key: first_names.get(name, name) for key, name in lifted.items()}
    names |= signature.inputs_to_lifted_tensor_constants
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ModelRefused("the network does not take one tensor to one tensor")
    graph = _with_attributes(program, names)
    stored: dict[str, Any] = {**program.state_dict, **program.constants}
    with quiet():
        return fx.GraphModule({name: stored[name].detach() for name in stored_names(graph)}, graph)


def _with_attributes(program: ExportedProgram, names: dict[str, str]) -> fx.Graph:
    """A copy of the program's graph; `names` are the stored tensors behind its lifted inputs."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            if node.users:
                copies[node] = graph.get_attr(names[node.name])
                copies[node].meta = dict(node.meta)
        elif node.op == "get_attr":
            raise ModelRefused("the network switches autocast on, or branches, while it computes")
        elif node.op == "output":
            graph.output(_required(copies.get(_answer(program, node))))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _required(answer: fx.Node | None) -> fx.Node:
    if answer is None or not _is_an_answer(answer.meta.get("val")):
        raise ModelRefused("the network does not answer with one tensor of numbers, a part for each row")
    return answer


def _answer(program: ExportedProgram, output: fx.Node) -> fx.Node:
    """The output that the caller gets; what else a program gives back are the tensors that it changed."""
    (values,) = output.args
    kinds = [specification.kind for specification in program.graph_signature.output_specs]
    if OutputKind.BUFFER_MUTATION in kinds or OutputKind.PARAMETER_MUTATION in kinds:
        raise ModelRefused("the network changes a stored tensor at inference")
    answer: fx.Node = values[kinds.index(OutputKind.USER_OUTPUT)]  # type: ignore[index, assignment]
    return answer


def _is_an_answer(value: object) -> bool:
    if not isinstance(value, Tensor) or value.dtype in (torch.bool, torch.complex64):
        return False
    return value.dim() > 0 and 0 not in value.shape and not isinstance(value.shape[0], int)


def inline_regions(module: fx.GraphModule) -> None:
    """Write out regions without gradients and those without autocast: at inference they change nothing."""
    for node in list(module.graph.nodes):
        position = _REGIONS.get(node.target)
        if position is None or (node.target is _AUTOCAST and node.args[2]):
            continue
        region, *operands = node.args[position:]
        inner: Any = module.get_submodule(str(region.target))
        inline_regions(inner)
        values = dict(zip((n for n in inner.graph.nodes if n.op == "placeholder"), operands, strict=True))
        with module.graph.inserting_before(node):
            results: Any = module.graph.graph_copy(inner.graph, values)
        for part in list(node.users):
            part.replace_all_uses_with(results[part.args[1]])
            module.graph.erase_node(part)
        for gone in (node, region):
            module.graph.erase_node(gone)
