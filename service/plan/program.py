"""The program: a folded graph in the calls of one backend, for batches from so many rows on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import fx

from service.graph.stored_tensors import stored_tensors
from service.plan import aten, cudnn, kept_norms, onednn
from service.plan.activations import respell
from service.plan.flattening import keep_order
from service.plan.lowering import Step, steps
from service.plan.packing import Packing
from service.plan.preprocessing import PixelEntry, for_pixels
from service.plan.reuse import reuse_memory

if TYPE_CHECKING:
    from service.plan.preprocessing import Preprocessing

_SIZES = (1, 2, 4, 8)
"""Rows for which oneDNN's layouts are asked for; for more they are those for the last."""
# A pixel is an exact number there, and what is left of a weight behind a division by 255 no denormal.
_HOLDS_PIXELS = (torch.float32, torch.bfloat16)
_BACKENDS = {"cpu": "onednn", "cuda": "cudnn"}


@dataclass(frozen=True)
class Program:
    """A graph that is ready to run, and the record of its calls."""

    rows: int
    """The smallest batch that it is made for."""
    module: fx.GraphModule
    """Takes network inputs."""
    steps: tuple[Step, ...]
    for_pixels: fx.GraphModule | None = None
    """The same with the preprocessing in the weights of its first layers; None where that is not exact."""

    def is_like(self, other: Program) -> bool:
        """Whether both make the same calls with weights of the same layouts."""
        return self.steps == other.steps and _packed(self.module) == _packed(other.module)


def programs(
    folded: fx.GraphModule,
    preprocessing: Preprocessing,
    precision: torch.dtype,
    device: torch.device,
    max_batch: int,
) -> list[Program]:
    """The programs for `device`, smallest batch first; they share all weights of the same layout."""
    entry = PixelEntry.of(folded, preprocessing) if precision in _HOLDS_PIXELS else None
    backend = _BACKENDS.get(device.type, "aten")
    made: list[Program] = []
    lowered = [_lowered(graph, precision, device) for graph in _graphs(folded, entry)]
    packings = [Packing() for _ in lowered]
    sizes = [rows for rows in _SIZES if rows <= max_batch] if backend == "onednn" else [1]
    for rows in sizes:
        fused = [fuse(*each, backend, precision, rows) for each in zip(lowered, packings, strict=True)]
        if not (made and fused[0].is_like(made[-1])):
            made.append(_with_entry(*fused))
    return made


def fuse(
    lowered: fx.GraphModule, packing: Packing, backend: str, precision: torch.dtype, rows: int = 1
) -> Program:
    """The graph in the calls of `onednn`, `cudnn` or `aten`, for about so many rows."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(lowered.graph, {}))
    module = fx.GraphModule(lowered, graph)
    respell(module.graph)
    written: dict[fx.Node, Step | None] = {}
    if backend == "onednn" and onednn.is_supported(precision):
        written |= kept_norms.lower(module, rows, packing)
        written |= onednn.lower(module, precision, rows, packing)
    elif backend == "cudnn":
        written = cudnn.lower(module)
    reuse_memory(module.graph)
    module.graph.eliminate_dead_code()
    return Program(rows, fx.GraphModule(stored_tensors(module), module.graph), steps(module.graph, written))


def _graphs(folded: fx.GraphModule, entry: PixelEntry | None) -> list[fx.GraphModule]:
    return [entry.graph, entry.layers] if entry else [folded]


def _lowered(graph: fx.GraphModule, precision: torch.dtype, device: torch.device) -> fx.GraphModule:
    lowered = aten.lower(graph, precision, device)
    keep_order(lowered)
    return lowered


def _with_entry(program: Program, layers: Program | None = None) -> Program:
    """The program with its other entry, from its first layers alone with the map in their weights."""
    pixels = for_pixels(program.module, layers.module) if layers else None
    return replace(program, for_pixels=pixels)


def _packed(module: fx.GraphModule) -> set[int]:
    return {id(tensor) for tensor in stored_tensors(module).values() if tensor.is_mkldnn}
