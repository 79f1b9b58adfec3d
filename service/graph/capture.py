"""Capture: a network in evaluation mode as one functional ATen graph with a dynamic batch."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export.graph_signature import OutputKind

from service.errors import ModelRefused
from service.graph.export import decomposed, exported, let_go, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

aten = torch.ops.aten

_DIVISIONS = {aten.div.Tensor_mode, aten.div.Scalar_mode}

_IDENTITY_IN_EVALUATION = {
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
}
# A view may not exist for other strides; a reshape then copies.
_LAYOUT_FREE: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten.view_as.default: aten.reshape_as.default,
}
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
# Calls of a graph of its own, and where among their arguments that stands.
_REGIONS: dict[Any, int] = {_AUTOCAST: 4, torch.ops.higher_order.wrap_with_set_grad_enabled: 1}
# Their results may share memory with an argument, although their schemas do not say so.
_UNDECLARED_VIEWS = {operator.getitem, aten.einsum.default}
# They check what export assumed; `_assert_tensor_metadata` would even refuse the float64 reference.
_ASSERTIONS = {
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
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


def capture(module: nn.Module, example: Tensor) -> CapturedGraph:
    """Capture `module` as it computes in evaluation mode; its training flag is left as it was.

    `example` is `[N, ...]`, any N: one row is repeated, because export would take a batch of one
    for a constant. Raises `ModelRefused` where the network cannot be exported, does not take one
    tensor to one tensor, or changes its own buffers at inference.
    """
    rows = example if len(example) > 1 else example.repeat(2, *[1] * (example.dim() - 1))
    program, first_names = exported(module, rows), _first_names(module)
    try:
        graph_module = _functional(program, first_names)
    finally:
        let_go(program)
    for node in graph_module.graph.nodes:
        if _mutates(node) or _keeps_statistics(node):
            raise ModelRefused(f"the network changes a stored tensor at inference ({node.target})")
        if _may_trap(node):
            raise ModelRefused(f"the network divides whole numbers and cuts the rest off ({node.target})")
    _drop_identities(graph_module.graph)
    _forget_strides(graph_module.graph)
    _say_dtypes(graph_module.graph)
    _name_by_first_names(graph_module.graph, module)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return CapturedGraph(graph_module, rows)


def _functional(program: ExportedProgram, first_names: dict[str, str]) -> fx.GraphModule:
    _inline_regions(program.graph_module)
    # Before anything else: decompositions take a dropout for a copy, which in evaluation it is not.
    _drop_identities(program.graph, keep_answer=True)
    try:
        graph_module = _unlifted(program, first_names)
        _make_functional(graph_module.graph)
    except _NotFunctional:
        graph_module = _unlifted(decomposed(program), first_names)
    return graph_module


def source_nodes(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes that read stored tensors."""
    return (node for node in graph.nodes if node.op == "get_attr")


def attribute(module: fx.GraphModule, target: str) -> Tensor:
    """The stored tensor behind a `get_attr` node's target."""
    value: Tensor = operator.attrgetter(target)(module)
    return value


def module_name(node: fx.Node) -> str:
    """The module that computes `node`, by its first name in the original network; empty for the root."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _first_names(module: nn.Module) -> dict[str, str]:
    """For each name of a stored tensor the first name that the same tensor has."""
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def _unlifted(program: ExportedProgram, first_names: dict[str, str]) -> fx.GraphModule:
    """The program's graph with its lifted parameters, buffers and constants as attributes again."""
    signature = program.graph_signature
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {key: first_names.get(name, name) for key, name in lifted.items()}
    names |= signature.inputs_to_lifted_tensor_constants
    stored: dict[str, Any] = {**program.state_dict, **program.constants}
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ModelRefused("the network does not take one tensor to one tensor")
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            if not node.users:
                continue
            copies[node] = graph.get_attr(names[node.name])
            copies[node].meta = dict(node.meta)
        elif node.op == "get_attr":
            raise ModelRefused("the network switches autocast on, or branches, while it computes")
        elif node.op == "output":
            answer = copies.get(_answer(program, node))
            if answer is None or not _is_an_answer(answer.meta.get("val")):
                raise ModelRefused(
                    "the network does not answer with one tensor of numbers, a part for each row"
                )
            graph.output(answer)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    used = {str(node.target) for node in source_nodes(graph)}
    with quiet():
        return fx.GraphModule({name: stored[name].detach() for name in used}, graph)


def _answer(program: ExportedProgram, output: fx.Node) -> fx.Node:
    """The output that the caller gets; what else a program gives back are the tensors that it changed."""
    (values,) = output.args
    kinds = [specification.kind for specification in program.graph_signature.output_specs]
    if OutputKind.BUFFER_MUTATION in kinds or OutputKind.PARAMETER_MUTATION in kinds:
        raise ModelRefused("the network changes a stored tensor at inference")
    answer: fx.Node = values[kinds.index(OutputKind.USER_OUTPUT)]  # type: ignore[index, assignment]
    return answer


def _inline_regions(module: fx.GraphModule) -> None:
    """Write out regions without gradients and those without autocast: at inference they change nothing."""
    for node in list(module.graph.nodes):
        position = _REGIONS.get(node.target)
        if position is None or (node.target is _AUTOCAST and node.args[2]):
            continue
        region, *operands = node.args[position:]
        inner: Any = module.get_submodule(str(region.target))
        _inline_regions(inner)
        values = dict(zip((n for n in inner.graph.nodes if n.op == "placeholder"), operands, strict=True))
        with module.graph.inserting_before(node):
            results: Any = module.graph.graph_copy(inner.graph, values)
        for part in list(node.users):
            part.replace_all_uses_with(results[part.args[1]])
            module.graph.erase_node(part)
        for gone in (node, region):
            module.graph.erase_node(gone)


def _is_an_answer(value: object) -> bool:
    if not isinstance(value, Tensor) or value.dtype in (torch.bool, torch.complex64):
        return False
    return value.dim() > 0 and 0 not in value.shape and not isinstance(value.shape[0], int)


class _NotFunctional(Exception):
    """An in-place operation whose effect on aliases is not obvious; decompositions handle it."""


def _make_functional(graph: fx.Graph) -> None:
    """Replace every in-place operation on an intermediate value by its functional counterpart."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not _mutates(node):
            continue
        mutated = node.args[0]
        functional = _functional_counterpart(node.target)
        if functional is None or not isinstance(mutated, fx.Node) or mutated.op == "get_attr":
            raise _NotFunctional
        later = [user for user in mutated.users if order[user] > order[node]]
        # What is made of the changed value afterwards reads `node`, and so the change.
        aliases = {alias for alias in _aliases(mutated) - {mutated} if order[alias] < order[node]}
        if any(alias.target is aten.einsum.default for alias in (mutated, *aliases)):
            raise ModelRefused("the network changes in place what may be a view made by einsum")
        if any(alias.op == "get_attr" for alias in aliases):
            raise _NotFunctional
        if any(order[user] > order[node] for alias in aliases for user in alias.users):
            raise _NotFunctional
        node.target = functional
        for user in later:
            user.replace_input_with(mutated, node)


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


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
    if node.target in _UNDECLARED_VIEWS or node.target in _IDENTITY_IN_EVALUATION:
        return True
    return isinstance(node.target, OpOverload) and any(
        returned.alias_info is not None for returned in node.target._schema.returns
    )


def _drop_identities(graph: fx.Graph, *, keep_answer: bool = False) -> None:
    """Drop what changes nothing in evaluation; `keep_answer` where a signature names the last value."""
    for node in list(graph.nodes):
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
        elif node.target in _IDENTITY_IN_EVALUATION and not (len(node.args) > 2 and node.args[2]):
            if keep_answer and any(user.op == "output" for user in node.users):
                continue
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


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


def _name_by_first_names(graph: fx.Graph, module: nn.Module) -> None:
    """Name a module that is registered more than once by its first name, wherever it is called."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(m), name) for name, m in module.named_modules(remove_duplicate=False)}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack", {})
        node.meta["nn_module_stack"] = {
            key: (names.get(path.partition("@")[0], path), kind) for key, (path, kind) in stack.items()
        }


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
