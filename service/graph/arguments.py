"""Arguments of an ATen call, by the names that its schema has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by name, those that it leaves out with their defaults."""
    schema: Any = getattr(node.target, "_schema", None)
    defaults = {parameter.name: parameter.default_value for parameter in schema.arguments} if schema else {}
    return {**defaults, **dict(zip(defaults, node.args, strict=False)), **node.kwargs}
