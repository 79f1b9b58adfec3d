"""The portable backend: every call stays the ATen call that it is, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from service.graph.precision import astype

aten = torch.ops.aten

# A view of a channels-last tensor may have no strides of its own; a reshape then copies.
_LAYOUT_FREE: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


def lower(folded: fx.GraphModule, precision: torch.dtype, device: torch.device) -> fx.GraphModule:
    """The folded graph on `device`, rounded once to `precision`, its weights channels-last."""
    lowered = astype(folded, precision)
    for node in lowered.graph.nodes:
        node.target = _LAYOUT_FREE.get(node.target, node.target)
    lowered.recompile()
    lowered.requires_grad_(False)
    for name, tensor in list(lowered.named_buffers()):
        parent, _, attribute = name.rpartition(".")
        setattr(
            lowered.get_submodule(parent),
            attribute,
            tensor.to(device).contiguous(memory_format=layout(tensor)),
        )
    for parameter in lowered.parameters():
        parameter.data = parameter.data.to(device).contiguous(memory_format=layout(parameter))
    return lowered


def layout(tensor: Tensor) -> torch.memory_format:
    """Channels-last where the rank has it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(tensor.dim(), torch.contiguous_format)
