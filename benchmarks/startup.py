"""From the start of `foldserve serve` to ready, and the memory that it takes.

    python benchmarks/startup.py [--models resnet50] [--cores 0,1] [--max-batches 0,1] [--rounds 5]

Serves each model, with random weights, from a temporary store: with its reference answers beside the
weights, and without. The cases take turns. Prints medians with quartiles; peak memory is the process's
high-water mark, less that of a process that imports torch, and less that of one that serves the digits
network and so has everything loaded that serving needs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stores import publish

from service.store.model_store import ModelStore

_MIB = 1 << 20
_PATIENCE_S = 300


@dataclass(frozen=True)
class Case:
    """One way of starting."""

    model: str
    reference: str
    max_batch: int


@dataclass(frozen=True)
class Start:
    """One start: seconds to ready, peak bytes, and the seconds of each step."""

    seconds: float
    peak: int
    steps: dict[str, float]


def main() -> None:
    """Measure and print a table per model."""
    arguments = _arguments()
    os.sched_setaffinity(0, arguments.cores)  # children inherit it
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: Path(folder) / name for name in arguments.references}
        for model, (reference, store) in product(arguments.models, stores.items()):
            publish(store, model)
            if reference == "stored":
                _foldserve("fold", model, "--write-reference", "--model-store", str(store)).wait()
        torch_alone, serving = _peak_of_torch(), _started(ROOT / "model_store", Case("digits", "", 0)).peak
        print(f"peak: `import torch` {torch_alone / _MIB:.0f} MiB, serving digits {serving / _MIB:.0f} MiB")
        cases = [Case(*case) for case in product(arguments.models, stores, arguments.max_batches)]
        starts: dict[Case, list[Start]] = defaultdict(list)
        for _ in range(arguments.rounds):
            for case in cases:
                starts[case].append(_started(stores[case.reference], case))
        _print(starts, stores, torch_alone, serving)


def _foldserve(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLDSERVE_")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", "service", *arguments], cwd=ROOT, env=environment, stdout=quiet, stderr=quiet
    )


def _started(store: Path, case: Case) -> Start:
    """Start the service, wait until it is ready, and end it."""
    port = _free_port()
    started = time.perf_counter()
    flags = ["--model-store", str(store), "--models", case.model, f"--max-batch={case.max_batch}"]
    process = _foldserve("serve", f"--port={port}", "--device=cpu", *flags)
    try:
        while not _answer(port, "/readyz"):
            if process.poll() is not None or time.perf_counter() - started > _PATIENCE_S:
                raise SystemExit(f"foldserve did not become ready ({case})")
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        facts = json.loads(_answer(port, f"/v1/models/{case.model}"))
        return Start(seconds, _peak(process.pid), facts["seconds"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _answer(port: int, path: str) -> bytes:
    """The body of a 200; empty for anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except OSError:
        return b""
    else:
        return body if answer.status == 200 else b""
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _peak(pid: int | str) -> int:
    """The high-water mark of a process's resident memory, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def _peak_of_torch() -> int:
    code = "import torch; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.partition("VmHWM:")[2].split()[0]) * 1024


def _print(starts: dict[Case, list[Start]], stores: dict[str, Path], torch_alone: int, serving: int) -> None:
    print("| model | reference | max_batch | to ready, s | MiB beyond torch (x weights) | beyond digits |")
    print("|---|---|---|---|---|---|")
    for case, measured in starts.items():
        size = ModelStore(stores[case.reference]).open(case.model).weights_path.stat().st_size
        peak = statistics.median(start.peak for start in measured)
        excess = [peak - torch_alone, peak - serving]
        beyond = [f"{less / _MIB:.0f} ({less / size:.1f}x)" for less in excess]
        seconds = _quartiles([start.seconds for start in measured])
        cells = [case.model, case.reference, case.max_batch or "default", seconds, *beyond]
        print("|", " | ".join(map(str, cells)), "|")
    for case, measured in starts.items():
        steps = {
            step: statistics.median(start.steps.get(step, 0.0) for start in measured)
            for step in measured[0].steps
        }
        shown = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
        print(f"{case.model}, {case.reference}, max_batch {case.max_batch or 'default'}: {shown}")


def _quartiles(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} .. {high:.2f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def listed(kind: Any) -> Any:
        return lambda text: [kind(part) for part in text.split(",")]

    parser.add_argument("--models", type=listed(str), default=["resnet50"])
    parser.add_argument("--cores", type=listed(int), default=sorted(os.sched_getaffinity(0))[:2])
    parser.add_argument("--references", type=listed(str), default=["stored", "computed"])
    parser.add_argument("--max-batches", type=listed(int), default=[0, 1], help="0: the manifest's, 64")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
