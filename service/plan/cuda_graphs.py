"""CUDA graphs: a computation's kernels, launched together and without Python, in memory from one pool."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from service.errors import ModelRefused
from service.plan.device import searching

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_RUNS_BEFORE = 3
"""The first finds algorithms and makes workspaces, which must not happen while it is recorded."""


class CudaGraphs:
    """Records CUDA graphs for one device; they share a pool, so that only one of them may run at a time."""

    def __init__(self, device: torch.device, *, allow_tf32: bool) -> None:
        self.device = device
        self._allow_tf32 = allow_tf32

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run `compute` until nothing of it is new, then record it; see `Recorder`.

        Raises `ModelRefused` for what cannot be recorded, such as a copy from the CPU.
        """
        with torch.cuda.device(self.device), searching(allow_tf32=self._allow_tf32):
            self._run(compute)
            graph = torch.cuda.CUDAGraph()
            try:
                answer = self._captured(graph, compute)
            except RuntimeError as error:
                raise ModelRefused(f"the network cannot be recorded as a CUDA graph: {error}") from error

        def replay() -> Tensor:
            graph.replay()
            return answer

        return replay

    def wait(self) -> None:
        """Return when the stream that replays has done its work."""
        torch.cuda.current_stream(self.device).synchronize()

    def pool_bytes(self) -> int:
        """What the allocator has set aside for the pool that the graphs share."""
        segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        return sum(each["total_size"] for each in segments if each["segment_pool_id"] == self._pool)

    def _run(self, compute: Callable[[], Tensor]) -> None:
        """On the stream that records: the libraries' workspaces belong to a stream."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_RUNS_BEFORE):
                compute()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _captured(self, graph: torch.cuda.CUDAGraph, compute: Callable[[], Tensor]) -> Tensor:
        # What other threads do on the device meanwhile is no part of the recording, and no mistake.
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.stream(self._stream), recording:  # one that fails leaves its stream in force
            return compute()

    # Made at the first recording: a plan can be lowered for a device that is not there.
    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
