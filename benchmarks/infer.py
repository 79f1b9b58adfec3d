"""What one row of 3x224x224 costs an HTTP worker in each form of the Open Inference Protocol.

    python benchmarks/infer.py [--requests 100] [--rounds 5]

Starts the service with one worker over a ResNet-18 with random weights, and sends the same 150,528 numbers,
one request after another: in JSON with the digits that a float32 needs (flat and nested), with those of a
float64, in JSON and gzip, and binary. `octets` is the native route with the same bytes: what reading them
and all else costs; the difference to it is the protocol's. Three rows are as many bytes as one in JSON.
Prints milliseconds of the worker's CPU time per request, user and system, as /metrics has it: the median
of the rounds, and the least.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx
import numpy as np
from stores import publish

SHAPE = (1, 3, 224, 224)
INFER, PREDICT = "/v2/models/resnet18/infer", "/v1/models/resnet18/predict"
LENGTH = "Inference-Header-Content-Length"
CPU = 'foldserve_process_cpu_seconds_total{process="worker-0"}'


class Body(NamedTuple):
    """What is sent, and where."""

    path: str
    content: bytes
    headers: dict[str, str]


def document(data: object) -> bytes:
    """A request in JSON."""
    tensor = {"name": "image", "shape": SHAPE, "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def bodies() -> dict[str, Body]:
    """The same row in every form."""
    row = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    short = [float(str(value)) for value in row.ravel()]  # the digits of a float32
    nested = np.array(short).reshape(SHAPE).tolist()
    tail, plain = row.tobytes(), {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    tensor = {
        "name": "image",
        "shape": SHAPE,
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(tail)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    octets = {"Content-Type": "application/octet-stream", "Accept-Encoding": "identity"}
    return {
        "octets": Body(PREDICT, tail, octets),
        "octets, three rows": Body(PREDICT, tail * 3, octets),
        "binary": Body(INFER, head + tail, octets | {LENGTH: str(len(head))}),
        "JSON, float32 digits": Body(INFER, document(short), plain),
        "JSON, nested": Body(INFER, document(nested), plain),
        "JSON, float64 digits": Body(INFER, document(row.astype(float).ravel().tolist()), plain),
        "JSON in gzip": Body(INFER, gzip.compress(document(short)), plain | {"Content-Encoding": "gzip"}),
    }


def cpu_seconds(client: httpx.Client) -> float:
    """Of the worker, so far."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(CPU))


def milliseconds(client: httpx.Client, body: Body, requests: int) -> float:
    """Of the worker's CPU time for one request; the scrape at the end is among them, and next to nothing."""
    before = cpu_seconds(client)
    for _ in range(requests):
        client.post(body.path, content=body.content, headers=body.headers).raise_for_status()
    return (cpu_seconds(client) - before) / requests * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), "resnet18")
        flags = ["--port=0", f"--model-store={folder}", "--workers=1"]
        command = [sys.executable, "-m", "service", "serve", *flags]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            said = next(line for line in process.stdout or [] if "ready at" in line)
            measure(said.split()[2], given.requests, given.rounds)
        finally:
            process.terminate()
            process.wait()


def measure(address: str, requests: int, rounds: int) -> None:
    """All forms in turns."""
    sent = bodies()
    found: dict[str, list[float]] = {name: [] for name in sent}
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        for body in sent.values():
            milliseconds(client, body, 5)  # warm
        for _ in range(rounds):
            for name, body in sent.items():
                found[name].append(milliseconds(client, body, requests))
    for name, times in found.items():
        kib = len(sent[name].content) // 1024
        print(f"{name:22} {kib:6} KiB  {statistics.median(times):6.2f} ms  least {min(times):6.2f} ms")


if __name__ == "__main__":
    main()
