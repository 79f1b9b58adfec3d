"""The interpreter: a lowered graph as one function of torch's own C++ interpreter.

Python between two calls costs as much as a small call itself, and holds the lock that the process's HTTP side
waits for. The function makes the same calls in the same order; nothing is compiled.
"""

from __future__ import annotations

import operator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from service.graph.stored_tensors import attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# None of this is documented; with a torch that has it no longer, Python makes the calls.
_NEEDED = (
    *("_create_function_from_graph", "Graph", "ListType", "OptionalType", "NumberType"),
    *("_get_graph_executor_optimize", "_set_graph_executor_optimize"),
)
_LISTS = {"List[Tensor]": "ofTensors", "List[int]": "ofInts", "List[float]": "ofFloats"}


class _Inexpressible(Exception):
    """A call or an argument that the interpreter has no words for."""


def interpreted(module: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    """The graph as one function of its placeholder, made by Python where a call cannot be expressed."""
    in_python = by_python(module)
    if not all(hasattr(torch._C, name) for name in _NEEDED):
        return in_python
    try:
        function = torch._C._create_function_from_graph("plan", _translated(module))
    except _Inexpressible:
        return in_python

    def run(rows: Tensor) -> Tensor:
        with _as_written():
            answer: Tensor = function(rows)
        return answer

    return run


def by_python(module: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    """The graph called by Python; to call the module would, while a thread exports, call its tracer."""
    forward: Callable[[Tensor], Tensor] = module.forward
    return forward


@contextmanager
def _as_written() -> Iterator[None]:
    """Without the interpreter's own passes, which would specialise on the first batch's shape."""
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(False)
    try:
        yield
    finally:
        torch._C._set_graph_executor_optimize(before)


def _translated(module: fx.GraphModule) -> Any:
    graph = torch._C.Graph()
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.addInput(node.name)
        elif node.op == "get_attr":
            values[node] = _constant(graph, attribute(module, str(node.target)))
        elif node.op == "output":
            graph.registerOutput(values[node.args[0]])
        else:
            values[node] = _call(graph, node, values)
    return graph


def _constant(graph: Any, tensor: Tensor) -> Any:
    if not tensor.is_mkldnn:
        return graph.insertConstant(tensor)
    packed = graph.appendNode(graph.create("prim::ConstantMKLDNNTensor"))
    return packed.t_("value", tensor).output()


def _call(graph: Any, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        (items,) = node.all_input_nodes
        return _made(graph, "aten::__getitem__", [values[items], graph.insertConstant(node.args[1])])
    if not isinstance(node.target, OpOverload) or len(node.target._schema.returns) != 1:
        raise _Inexpressible
    schema = node.target._schema
    given = dict(zip((parameter.name for parameter in schema.arguments), node.args, strict=False))
    given |= node.kwargs
    inputs = [
        _argument(graph, given.get(parameter.name, parameter.default_value), str(parameter.type), values)
        for parameter in schema.arguments
    ]
    output = _made(graph, schema.name, inputs)
    output.setType(schema.returns[0].type)
    return output


def _made(graph: Any, name: str, inputs: list[Any]) -> Any:
    call = graph.appendNode(graph.create(name, inputs))
    if call.schema() == "(no schema)":
        raise _Inexpressible
    return call.output()


def _argument(graph: Any, value: Any, kind: str, values: dict[fx.Node, Any]) -> Any:
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, list | tuple):
        made = graph.create("prim::ListConstruct", [_argument(graph, item, "", values) for item in value])
        graph.appendNode(made).output().setType(_list_type(kind))
        return made.output()
    if value is None or isinstance(value, bool | int | float | str):
        return graph.insertConstant(value)
    raise _Inexpressible


def _list_type(kind: str) -> Any:
    """The interpreter's type for a list parameter of a schema."""
    if "List[Optional[number]]" in kind:
        return torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get()))
    made = [getattr(torch._C.ListType, name) for words, name in _LISTS.items() if words in kind]
    if not made:
        raise _Inexpressible
    return made[0]()
