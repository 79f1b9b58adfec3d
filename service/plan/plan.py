"""The plan: a folded graph, lowered and packed for one device and one precision."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from service.errors import InvalidConfiguration
from service.graph.shapes import shape_of
from service.graph.solitude import one_at_a_time
from service.graph.stored_tensors import stored_tensors
from service.plan import aten, footprint
from service.plan.cuda_graphs import CudaGraphs
from service.plan.device import use_threads
from service.plan.interpreter import by_python, interpreted
from service.plan.preprocessing import PixelPass
from service.plan.program import programs
from service.plan.recording import Recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

    from service.plan.preprocessing import Preprocessing
    from service.plan.program import Program
    from service.plan.recording import Recorder


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


class _Run:
    """One program behind its two entries."""

    def __init__(
        self, program: Program, normalise: PixelPass, precision: torch.dtype, device: torch.device
    ) -> None:
        self._inputs = _runnable(program.module, device)
        self._pixels = _runnable(program.for_pixels, device) if program.for_pixels else None
        self._normalise = normalise
        self._precision = precision

    def __call__(self, rows: Tensor) -> Tensor:
        """Answer rows that are on the device, in float32, there."""
        run = self._inputs
        if rows.dtype == torch.uint8:
            run, rows = (self._pixels, rows) if self._pixels else (run, self._normalise(rows))
        return run(rows.to(self._precision)).to(torch.float32)


class Plan:
    """Computes rows on one device; not thread-safe, the engine's thread owns it."""

    def __init__(
        self,
        programs: Sequence[Program],
        normalise: PixelPass,
        *,
        precision: torch.dtype,
        device: torch.device,
        max_batch: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`programs`: smallest batch first. `recorder` makes recordings that answer; None: call by call."""
        self.programs = tuple(programs)
        """What is called, in order, for batches of different sizes."""
        self.precision = precision
        self.device = device
        self.max_batch = max_batch
        self.threads = torch.get_num_threads() if device.type == "cpu" else 0
        """How many compute it, which its weights are packed for; 0 on a device that has none."""
        self._normalise = normalise
        self._recorder = recorder
        self._runs = [_Run(program, normalise, precision, device) for program in programs]
        self._sizes = [program.rows for program in programs]
        self._answer = Recordings(self._compute, recorder, self.buckets()) if recorder else self._compute

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Answer `[N, C, H, W]` rows, N up to any number, with float32 `[N, ...]` on the CPU.

        `uint8` rows are pixels; `float32` rows are network inputs, normalised already. More than
        `max_batch` rows are computed in several steps.
        """
        if self.threads:
            use_threads(self.threads)
        if len(rows) <= self.max_batch:
            return self._answer(rows)
        return torch.cat([self._answer(part) for part in torch.split(rows, self.max_batch)])

    def buckets(self) -> list[int]:
        """The batch sizes to warm up: the powers of two below `max_batch`, and itself; largest first."""
        powers = [1 << exponent for exponent in range(self.max_batch.bit_length())]
        return sorted({*powers, self.max_batch}, reverse=True)

    def warm_up(self, row: Tensor) -> dict[int, Tensor]:
        """Run every bucket with copies of one row of pixels `[C, H, W]`, on the thread that will serve.

        Where only the pass over the pixels is different from what network inputs go through, which are
        proven and so warm, one row is enough. The answers, float32 `[bucket, ...]`, by bucket.
        """
        is_warm = not isinstance(self._answer, Recordings) and self.preprocessing == "one pass"
        buckets = [1] if is_warm else self.buckets()
        return {bucket: self(row.unsqueeze(0).repeat(bucket, *[1] * row.dim())) for bucket in buckets}

    def release(self) -> None:
        """Give its memory back at once; it computes nothing any more.

        Graphs and what runs them hold each other: else their weights would wait for a collection, and
        what was exempt from those would never be freed.
        """
        parts = [
            self,
            *(module for run in self.programs for module in (run.module, run.for_pixels) if module),
        ]
        for part in parts:
            part.__dict__.clear()

    @property
    def preprocessing(self) -> str:
        """Where pixels become network inputs: in `one pass`, or in the weights of the `first layers`."""
        return "first layers" if all(program.for_pixels for program in self.programs) else "one pass"

    @property
    def memory(self) -> dict[str, int]:
        """Bytes that it holds now: `weights` that ATen calls read, `packed` ones, and `graphs` on CUDA.

        `graphs` is the pool in which recordings compute. What several programs share counts once.
        """
        modules = (module for run in self.programs for module in (run.module, run.for_pixels) if module)
        tensors = (tensor for module in modules for tensor in stored_tensors(module).values())
        pool = self._recorder.pool_bytes() if self._recorder else 0
        return {**footprint.of([*tensors, *self._normalise.tensors]), "graphs": pool}

    def _compute(self, rows: Tensor) -> Tensor:
        run = self._runs[bisect(self._sizes, len(rows)) - 1]
        return run(rows.to(memory_format=aten.layout(rows)))


@one_at_a_time()
def lower(
    folded: fx.GraphModule,
    preprocessing: Preprocessing,
    *,
    precision: torch.dtype,
    device: torch.device,
    max_batch: int,
    allow_tf32: bool = False,
) -> Plan:
    """The folded graph as a plan for `device` in `precision`, on a CPU for torch's number of threads.

    On a CUDA device what cuDNN can fuse runs there, and every batch bucket is one CUDA graph; `allow_tf32`
    is for such a device only. On a CPU what oneDNN can fuse runs there, where this processor has it in this
    precision. The rest runs as ATen calls. Raises `InvalidConfiguration` for TF32 elsewhere.
    """
    Precision(precision, allow_tf32).on(device)
    (given,) = folded.graph.find_nodes(op="placeholder")
    return Plan(
        programs(folded, preprocessing, precision, device, max_batch),
        PixelPass(preprocessing, shape_of(given)[1:], device),
        precision=precision,
        device=device,
        max_batch=max_batch,
        recorder=CudaGraphs(device, allow_tf32=allow_tf32) if device.type == "cuda" else None,
    )


def _runnable(module: fx.GraphModule, device: torch.device) -> Callable[[Tensor], Tensor]:
    return interpreted(module) if device.type == "cpu" else by_python(module)
