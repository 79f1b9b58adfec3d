"""The plan: a folded graph, lowered and packed for one device and one precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from service.graph.capture import attribute, source_nodes
from service.plan import aten, onednn
from service.plan.activations import respell
from service.plan.interpreter import interpreted
from service.plan.lowering import Step, steps
from service.plan.reuse import reuse_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network inputs: `(pixel / 255 - mean) / std`, per channel."""

    mean: Sequence[float]
    std: Sequence[float]

    def coefficients(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Scale and shift as float32 `[C, 1, 1]`, so that the input is `pixel * scale + shift`."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale, shift = 1 / (255 * std), -mean / std
        return (
            scale.to(device, torch.float32).reshape(-1, 1, 1),
            shift.to(device, torch.float32).reshape(-1, 1, 1),
        )


class Plan:
    """Computes rows on one device; not thread-safe, the engine's thread owns it."""

    def __init__(
        self,
        lowered: fx.GraphModule,
        steps: tuple[Step, ...],
        preprocessing: Preprocessing,
        *,
        precision: torch.dtype,
        device: torch.device,
        max_batch: int,
    ) -> None:
        self._lowered = lowered
        self._run = interpreted(lowered) if device.type == "cpu" else lowered
        self.steps = steps
        """What is called, in order."""
        self._scale, self._shift = preprocessing.coefficients(device)
        self.precision = precision
        self.device = device
        self.max_batch = max_batch

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

    def warm_up(self, row: Tensor) -> None:
        """Run every bucket with copies of one row `[C, H, W]`, on the thread that will serve."""
        for bucket in self.buckets():
            self(row.unsqueeze(0).repeat(bucket, *[1] * row.dim()))

    def _answer(self, rows: Tensor) -> Tensor:
        on_device = rows.to(self.device, memory_format=aten.layout(rows), non_blocking=True)
        if rows.dtype == torch.uint8:
            on_device = torch.addcmul(self._shift, on_device, self._scale)
        answer: Tensor = self._run(on_device.to(self.precision))
        return answer.to("cpu", torch.float32)


def lower(
    folded: fx.GraphModule,
    preprocessing: Preprocessing,
    *,
    precision: torch.dtype,
    device: torch.device,
    max_batch: int,
) -> Plan:
    """The folded graph as a plan for `device` in `precision`.

    What oneDNN can fuse runs there, where this processor has it in this precision; the rest as ATen calls.
    """
    lowered = aten.lower(folded, precision, device)
    respell(lowered.graph)
    uses_onednn = device.type == "cpu" and onednn.is_supported(precision)
    fused = onednn.lower(lowered) if uses_onednn else {}
    reuse_memory(lowered.graph)
    record = steps(lowered.graph, fused, "onednn")
    return Plan(
        _with_used_tensors(lowered),
        record,
        preprocessing,
        precision=precision,
        device=device,
        max_batch=max_batch,
    )


def _with_used_tensors(module: fx.GraphModule) -> fx.GraphModule:
    """The module without the tensors that no call reads any more."""
    module.graph.eliminate_dead_code()
    used = {str(node.target): attribute(module, str(node.target)) for node in source_nodes(module.graph)}
    return fx.GraphModule(used, module.graph)
