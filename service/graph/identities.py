"""Identities: calls that change nothing in evaluation, and checks of what the export assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import fx

aten = torch.ops.aten

IDENTITIES = {
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
}
# `_assert_tensor_metadata` would even refuse the float64 reference.
_ASSERTIONS = {
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
}


def drop_identities(graph: fx.Graph, *, keep_answer: bool = False) -> None:
    """Drop what changes nothing in evaluation; `keep_answer` where a signature names the last value."""
    for node in list(graph.nodes):
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
        elif node.target in IDENTITIES and not (len(node.args) > 2 and node.args[2]):
            if keep_answer and any(user.op == "output" for user in node.users):
                continue
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
