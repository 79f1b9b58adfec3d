"""The portable backend: every call stays the ATen call that it is, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from service.graph.precision import astype


def lower(folded: fx.GraphModule, precision: torch.dtype, device: torch.device) -> fx.GraphModule:
    """The folded graph on `device`, rounded once to `precision`, its weights channels-last."""
    lowered = astype(folded, precision)
    for node in lowered.graph.nodes:
        node.args, node.kwargs = _on(device, node.args), _on(device, node.kwargs)
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


def _on(device: torch.device, argument: Any) -> Any:
    """The arguments of a call with every device among them, which is the capture's, replaced."""
    if isinstance(argument, torch.device):
        return device
    if isinstance(argument, list | tuple):
        return type(argument)([_on(device, item) for item in argument])
    if isinstance(argument, dict):
        return {key: _on(device, item) for key, item in argument.items()}
    return argument


def layout(tensor: Tensor) -> torch.memory_format:
    """Channels-last where the rank has it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(tensor.dim(), torch.contiguous_format)
