"""The contenders of `serving.py`: each a tree of processes on the server's cores, one loaded at a time."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pinned
import process_tree
import wrk
from samples import percentile

if TYPE_CHECKING:
    from payloads import Payload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_PATIENCE_S = 180


class AbsentError(Exception):
    """Why a contender cannot be measured here."""


@dataclass(frozen=True)
class Bench:
    """What all contenders of a network share."""

    store: Path
    model: str
    max_batch: int
    """For peers that batch: what foldserve computes at once, unless asked for another."""
    server_cores: tuple[int, ...]
    load_core: int
    workers: int
    is_slow: bool
    """Whether a row takes milliseconds: then windows are read by the slope of their answers."""
    flags: tuple[str, ...] = ()
    """More flags of `foldserve serve`."""


class Contender:
    """A service in a process of its own, asked over HTTP."""

    name = ""
    words = ""
    path = "/predict"
    is_restless = False
    """Whether it works when nobody asks, so that it has to be stopped while others are measured."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.port = _free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it ends
        self._process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        """What runs it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Of its processes: this one's, without settings of foldserve."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FOLDSERVE_")}
        kept.pop("OMP_NUM_THREADS", None)  # every contender has the server's cores
        return kept

    def start(self) -> None:
        """Start its processes, pinned to the server's cores before the program is loaded."""
        self._process = subprocess.Popen(
            pinned.command(self.bench.server_cores, self.command()),
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=self._stdout(),
            stderr=self._log,
            text=True,
        )

    def wait(self, payload: Payload) -> None:
        """Until it answers; raises `AbsentError` where it does not."""
        until = time.monotonic() + _PATIENCE_S
        while not self._answers(payload):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AbsentError(f"it did not start:\n{self.log()[-2000:]}")
            time.sleep(0.1)

    def measure(self, payload: Payload, concurrency: int, seconds: int) -> wrk.Window:
        """One window of a closed loop."""
        return wrk.load(
            self.url(payload),
            payload,
            connections=concurrency,
            seconds=seconds,
            core=self.bench.load_core,
            note_arrivals=self.bench.is_slow,
        )

    def warm_up(self, payloads: list[Payload], concurrency: int) -> None:
        """Whatever it does once for a load of this size: pools, batches."""
        self.measure(payloads[0], concurrency, 1)

    def rest(self) -> None:
        """Leave the cores to others."""
        process_tree.settle(self.pid)
        if self.is_restless:
            process_tree.pause(self.pid)

    def wake(self) -> None:
        """Be ready for a load."""
        process_tree.resume(self.pid)

    def stop(self) -> None:
        """End it and everything it started."""
        process_tree.end(self.pid)
        self.process.communicate()
        self._log.close()

    def url(self, payload: Payload) -> str:
        """Where the payload is sent."""
        return f"http://127.0.0.1:{self.port}{self.path}{payload.query}"

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    @property
    def process(self) -> subprocess.Popen[str]:
        """The root of its tree."""
        assert self._process is not None, "not started"  # noqa: S101
        return self._process

    @property
    def pid(self) -> int:
        """Of the root of its tree."""
        return self.process.pid

    def log(self) -> str:
        """What it wrote so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def _stdout(self) -> Any:
        return self._log

    def _answers(self, payload: Payload) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            target = f"{self.path}{payload.query}"
            connection.request(
                "POST", target, payload.file.read_bytes(), {"Content-Type": payload.media_type}
            )
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
