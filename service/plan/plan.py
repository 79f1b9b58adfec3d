"""The plan: a folded graph, lowered and packed for one device and one precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from service.errors import InvalidConfiguration
from service.graph.capture import attribute, source_nodes
from service.plan import aten, cudnn, onednn
from service.plan.activations import respell
from service.plan.cuda_graphs import CudaGraphs
from service.plan.interpreter import interpreted
from service.plan.lowering import Step, steps
from service.plan.recording import Recordings
from service.plan.reuse import reuse_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.plan.recording import Recorder

_MANY = 8


@dataclass(frozen=True)
class Precision:
    """What a plan computes in."""

    dtype: torch.dtype
    """Of its tensors."""
    allow_tf32: bool = False
    """Whether a CUDA device may round what it multiplies to TF32, which has float16's 10 bits."""

    def on(self, device: torch.device) -> Precision:
        """This precision; raises `InvalidConfiguration` where `device` has not got it."""
        if self.allow_tf32 and device.type != "cuda":
            raise InvalidConfiguration(f"precision tf32 is for CUDA devices; this device is {device}")
        return self

    @property
    def proven_as(self) -> torch.dtype:
        """The dtype whose parity tolerance applies; TF32 rounds as float16 does, so float16's does."""
        return torch.float16 if self.allow_tf32 else self.dtype


PRECISIONS = {
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, allow_tf32=True),
    "bfloat16": Precision(torch.bfloat16),
    "float16": Precision(torch.float16),
}


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


@dataclass(frozen=True)
class Lowered:
    """A graph that is ready to run, and the record of its calls."""

    module: fx.GraphModule
    steps: tuple[Step, ...]


class Plan:
    """Computes rows on one device; not thread-safe, the engine's thread owns it."""

    def __init__(
        self,
        for_many: Lowered,
        for_one: Lowered,
        preprocessing: Preprocessing,
        *,
        precision: torch.dtype,
        device: torch.device,
        max_batch: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorder`: rows are answered by recordings that it makes; None: call by call."""
        self._lowered, self._lowered_for_one = for_many.module, for_one.module
        self._run = _runnable(for_many, device)
        self._run_one = self._run if for_one is for_many else _runnable(for_one, device)
        self.steps = for_many.steps
        """What is called, in order, for a batch of rows."""
        self.steps_for_one = for_one.steps
        """The same for a single row."""
        self._scale, self._shift = preprocessing.coefficients(device)
        self.precision = precision
        self.device = device
        self.max_batch = max_batch
        self._answer = Recordings(self._compute, recorder, self.buckets()) if recorder else self._compute

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Answer `[N, C, H, W]` rows, N up to any number, with float32 `[N, ...]` on the CPU.

        `uint8` rows are pixels; `float32` rows are network inputs, normalised already. More than
        `max_batch` rows are computed in several steps.
        """
        if len(rows) <= self.max_batch:
            return self._answer(rows)
        return torch.cat([self._answer(part) for part in torch.split(rows, self.max_batch)])

    def buckets(self) -> list[int]:
        """The batch sizes to warm up: the powers of two below `max_batch`, and itself; largest first."""
        powers = [1 << exponent for exponent in range(self.max_batch.bit_length())]
        return sorted({*powers, self.max_batch}, reverse=True)

    def warm_up(self, row: Tensor) -> None:
        """Run every bucket with copies of one row `[C, H, W]`, on the thread that will serve."""
        for bucket in self.buckets():
            self(row.unsqueeze(0).repeat(bucket, *[1] * row.dim()))

    def _compute(self, rows: Tensor) -> Tensor:
        """Answer rows that are on the device, in float32, there."""
        inputs = rows.to(memory_format=aten.layout(rows))
        if rows.dtype == torch.uint8:
            inputs = torch.addcmul(self._shift, inputs, self._scale)
        run = self._run_one if len(rows) == 1 else self._run
        return run(inputs.to(self.precision)).to(torch.float32)


def lower(
    folded: fx.GraphModule,
    preprocessing: Preprocessing,
    *,
    precision: torch.dtype,
    device: torch.device,
    max_batch: int,
    allow_tf32: bool = False,
) -> Plan:
    """The folded graph as a plan for `device` in `precision`.

    On a CUDA device what cuDNN can fuse runs there, and every batch bucket is one CUDA graph; `allow_tf32`
    is for such a device only. On a CPU what oneDNN can fuse runs there, where this processor has it in this
    precision. The rest runs as ATen calls. Raises `InvalidConfiguration` for TF32 elsewhere.
    """
    Precision(precision, allow_tf32).on(device)
    lowered = aten.lower(folded, precision, device)
    backend = {"cpu": "onednn", "cuda": "cudnn"}.get(device.type, "aten")
    packed: dict[str, Tensor] = {}
    for_many = fuse(lowered, backend, precision, _MANY, packed)
    for_one = fuse(lowered, backend, precision, 1, packed)
    return Plan(
        for_many,
        for_many if for_one.steps == for_many.steps else for_one,
        preprocessing,
        precision=precision,
        device=device,
        max_batch=max_batch,
        recorder=CudaGraphs(device, allow_tf32=allow_tf32) if device.type == "cuda" else None,
    )


def fuse(
    lowered: fx.GraphModule, backend: str, precision: torch.dtype, rows: int, packed: dict[str, Tensor]
) -> Lowered:
    """The graph in the calls of `onednn`, `cudnn` or `aten`, for about so many rows; adds to `packed`."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(lowered.graph, {}))
    module = fx.GraphModule(lowered, graph)
    respell(module.graph)
    written: dict[fx.Node, Step | None] = {}
    if backend == "onednn" and onednn.is_supported(precision):
        written = onednn.lower(module, precision, rows, packed)
    elif backend == "cudnn":
        written = cudnn.lower(module)
    reuse_memory(module.graph)
    module.graph.eliminate_dead_code()
    used = {str(node.target): attribute(module, str(node.target)) for node in source_nodes(module.graph)}
    return Lowered(fx.GraphModule(used, module.graph), steps(module.graph, written))


def _runnable(lowered: Lowered, device: torch.device) -> Callable[[Tensor], Tensor]:
    return interpreted(lowered.module) if device.type == "cpu" else lowered.module
