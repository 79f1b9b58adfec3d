"""Names: what calls and tensors are called in the original network.

A module or tensor that is registered more than once goes by its first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx, nn


def module_name(node: fx.Node) -> str:
    """The module that computes `node`; empty for the root."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def owner(tensor_name: str) -> str:
    """The module that a stored tensor belongs to: `layer1.bn` for `layer1.bn.running_var`."""
    return tensor_name.rpartition(".")[0] or tensor_name


def first_tensor_names(module: nn.Module) -> dict[str, str]:
    """For each name of a stored tensor the first name that the same tensor has."""
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def name_calls(graph: fx.Graph, module: nn.Module) -> None:
    """Let every call name the modules that it is made in by their first names, wherever they are called."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(m), name) for name, m in module.named_modules(remove_duplicate=False)}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack", {})
        node.meta["nn_module_stack"] = {
            key: (names.get(path.partition("@")[0], path), kind) for key, (path, kind) in stack.items()
        }
