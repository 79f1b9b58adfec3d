"""The contenders of `serving.py`: foldserve, its engine alone, bare FastAPI and the peers."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import wrk
from absent import AbsentError
from contender import HERE, Bench, Contender
from samples import percentile

if TYPE_CHECKING:
    from payloads import Payload


class Foldserve(Contender):
    """`foldserve serve`, as its command line starts it."""

    name = "foldserve"
    words = "this service through its command line"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.path = f"/v1/models/{bench.model}/predict"

    def command(self) -> list[str]:
        flags = [f"--port={self.port}", f"--model-store={self.bench.store}", f"--models={self.bench.model}"]
        return [sys.executable, "-m", "service", "serve", *flags, "--device=cpu", *self.bench.flags]


class InProcess(Contender):
    """The plan called in a loop: at concurrency 1 with one row, else with the batch that is best."""

    name = "in-process"
    words = "the engine's plan called in a loop, without HTTP: one row at concurrency 1, else the best batch"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._best: dict[str, int] = {}
        self._sizes: list[int] = []

    def command(self) -> list[str]:
        flags = ["--model-store", str(self.bench.store), "--model", self.bench.model]
        return [sys.executable, str(HERE / "in_process.py"), *flags]

    def wait(self, payload: Payload) -> None:  # noqa: ARG002 - it needs no body to be ready
        word, _, rows = self._said().partition(" ")
        if word != "ready":
            raise AbsentError(f"it did not start:\n{self.log()[-2000:]}")
        largest = int(rows)
        self._sizes = sorted({*(1 << power for power in range(largest.bit_length())), largest})

    def measure(self, payload: Payload, concurrency: int, seconds: int) -> wrk.Window:
        batch = 1 if concurrency == 1 else self._best_batch(payload.dtype)
        times = self._times(payload.dtype, batch, seconds)
        return wrk.Window(
            batch * len(times) / sum(times),
            1000 * statistics.median(times),
            1000 * percentile(times, 0.99),
            batch * len(times),
            0,
        )

    def warm_up(self, payloads: list[Payload], concurrency: int) -> None:  # noqa: ARG002 - it has no connections
        for payload in payloads:
            self._best_batch(payload.dtype)

    def _best_batch(self, dtype: str) -> int:
        if dtype not in self._best:
            # Two turns each, the better one: a neighbour's second must not choose.
            turns = [(size, self._times(dtype, size, 0.4)) for size in self._sizes * 2]
            rates = {size: max(size * len(t) / sum(t) for s, t in turns if s == size) for size in self._sizes}
            self._best[dtype] = max(rates, key=rates.__getitem__)
        return self._best[dtype]

    def _times(self, dtype: str, batch: int, seconds: float) -> list[float]:
        print(dtype, batch, seconds, file=self.process.stdin, flush=True)
        times: list[float] = json.loads(self._said())
        return times

    def _said(self) -> str:
        return self.process.stdout.readline().strip() if self.process.stdout else ""

    def _stdout(self) -> Any:
        return subprocess.PIPE


class _Peer(Contender):
    script = ""
    variant = ""

    def command(self) -> list[str]:
        flags = [f"--port={self.port}", f"--model-store={self.bench.store}", f"--model={self.bench.model}"]
        flags += [f"--workers={self.bench.workers}", f"--max-batch={self.bench.max_batch}"]
        return [sys.executable, str(HERE / "peers" / self.script), *flags, f"--variant={self.variant}"]


class Bare(_Peer):
    """FastAPI that reads the body and computes nothing."""

    name = "bare"
    words = "FastAPI that only reads the body, with as many workers on sockets of their own; computes nothing"
    script = "bare.py"


class Naive(_Peer):
    """FastAPI with a sync handler that runs the eager network."""

    name = "naive"
    words = "FastAPI, a sync handler with the eager network, no batching"
    script = "naive.py"


class Batched(_Peer):
    """The hand-written batcher with the eager network."""

    name = "batched"
    words = "FastAPI, one process, a hand-written batcher on the event loop, eager channels-last"
    script = "batched.py"
    variant = "channels-last"


class BatchedFolded(_Peer):
    """The hand-written batcher with the folded network."""

    name = "batched-folded"
    words = "the same with foldserve's folded network"
    script = "batched.py"
    variant = "folded"


class Lit(_Peer):
    """LitServe."""

    name = "litserve"
    words = "LitServe with batching, eager channels-last in its worker"
    is_restless = True  # its worker asks its queue a thousand times a second
    script = "lit.py"
    variant = "channels-last"

    def start(self) -> None:
        if importlib.util.find_spec("litserve") is None:
            raise AbsentError("litserve is not installed (pip install 'foldserve[bench]')")
        super().start()


CONTENDERS: dict[str, type[Contender]] = {
    kind.name: kind for kind in (Foldserve, InProcess, Bare, Naive, Batched, BatchedFolded, Lit)
}
