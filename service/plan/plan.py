"""The plan: a folded graph, lowered and packed for one device and one precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from service.graph.shapes import shape_of
from service.plan import aten, kept_norms, onednn
from service.plan.activations import respell
from service.plan.device import use_threads
from service.plan.flattening import keep_order
from service.plan.lowering import Fusion, Step, steps
from service.plan.preprocessing import PixelEntry, PixelPass, Preprocessing, for_pixels, tensors_of
from service.plan.reuse import reuse_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# A pixel is an exact number there, and what is left of a weight behind a division by 255 no denormal.
_HOLDS_PIXELS = (torch.float32, torch.bfloat16)


class Plan:
    """Computes rows on one device; not thread-safe, the engine's thread owns it."""

    def __init__(
        self,
        lowered: fx.GraphModule,
        steps: tuple[Step, ...],
        normalise: PixelPass,
        for_pixels: fx.GraphModule | None = None,
        *,
        precision: torch.dtype,
        device: torch.device,
        max_batch: int,
    ) -> None:
        self._lowered = lowered
        self.steps = steps
        self._normalise = normalise
        self._for_pixels = for_pixels
        self.precision = precision
        self.device = device
        self.max_batch = max_batch
        self.threads: Mapping[int, int] = {}
        """How many threads compute each bucket, smallest first; empty: as many as torch is set to."""

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Answer `[N, C, H, W]` rows, N up to any number, with float32 `[N, ...]` on the CPU.

        `uint8` rows are pixels; `float32` rows are network inputs, normalised already. More than
        `max_batch` rows are computed in several steps.
        """
        return torch.cat([self._answer(part) for part in torch.split(rows, self.max_batch)])

    def buckets(self) -> list[int]:
        """The batch sizes to warm up: the powers of two below `max_batch`, and itself; largest first."""
        powers = [1 << exponent for exponent in range(self.max_batch.bit_length())]
        return sorted({*powers, self.max_batch}, reverse=True)

    def warm_up(self, row: Tensor) -> dict[int, Tensor]:
        """Run every bucket with copies of one row `[C, H, W]`, on the thread that will serve.

        The answers, float32 `[bucket, ...]`, by bucket.
        """
        return {bucket: self(row.unsqueeze(0).repeat(bucket, *[1] * row.dim())) for bucket in self.buckets()}

    @property
    def preprocessing(self) -> str:
        """Where pixels become network inputs: in `one pass`, or in the weights of the `first layers`."""
        return "first layers" if self._for_pixels else "one pass"

    def _answer(self, rows: Tensor) -> Tensor:
        if self.threads:
            use_threads(next(number for bucket, number in self.threads.items() if bucket >= len(rows)))
        on_device = rows.to(self.device, memory_format=aten.layout(rows), non_blocking=True)
        return self._computed(on_device).to("cpu", torch.float32)

    def _computed(self, rows: Tensor) -> Tensor:
        enter = self._lowered
        if rows.dtype == torch.uint8:
            enter, rows = (self._for_pixels, rows) if self._for_pixels else (enter, self._normalise(rows))
        answer: Tensor = enter(rows.to(self.precision))
        return answer


def lower(
    folded: fx.GraphModule,
    preprocessing: Preprocessing,
    *,
    precision: torch.dtype,
    device: torch.device,
    max_batch: int,
    least_work: int = onednn.LEAST_WORK,
) -> Plan:
    """The folded graph as a plan for `device` in `precision`.

    What oneDNN can fuse runs there, where this processor has it in this precision; the rest as ATen calls.
    """
    entry = PixelEntry.of(folded, preprocessing) if precision in _HOLDS_PIXELS else None
    lowered, fused = _lowered(entry.graph if entry else folded, precision, device, least_work)
    return Plan(
        lowered,
        steps(lowered.graph, fused, "onednn"),
        PixelPass(preprocessing, _row(folded), device),
        for_pixels(lowered, _lowered(entry.layers, precision, device, least_work)[0]) if entry else None,
        precision=precision,
        device=device,
        max_batch=max_batch,
    )


def _lowered(
    folded: fx.GraphModule, precision: torch.dtype, device: torch.device, least_work: int
) -> tuple[fx.GraphModule, dict[fx.Node, Fusion]]:
    """The graph in the operators that run, without the tensors that no call reads any more."""
    lowered = aten.lower(folded, precision, device)
    respell(lowered.graph)
    keep_order(lowered)
    uses_onednn = device.type == "cpu" and onednn.is_supported(precision)
    fused = {**kept_norms.lower(lowered), **onednn.lower(lowered, least_work)} if uses_onednn else {}
    reuse_memory(lowered.graph)
    lowered.graph.eliminate_dead_code()
    return fx.GraphModule(tensors_of(lowered), lowered.graph), fused


def _row(folded: fx.GraphModule) -> list[int]:
    (given,) = folded.graph.find_nodes(op="placeholder")
    return shape_of(given)[1:]
