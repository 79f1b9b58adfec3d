"""Overload: more requests than the service can answer, at a rate that does not wait for it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import process_tree
from contenders import Foldserve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contender import Bench
    from payloads import Payload

_OPEN_LOOP = Path(__file__).resolve().parent / "open_loop.py"


def measured(
    bench: Bench, payload: Payload, *, rows: int, times: list[float], seconds: int
) -> dict[str, Any]:
    """A foldserve whose queue holds `rows`, offered `times` what it answers in a closed loop."""
    service = Foldserve(replace(bench, flags=(*bench.flags, f"--max-waiting-rows={rows}")))
    service.start()
    try:
        service.wait(payload)
        batching = service.get(f"/v1/models/{bench.model}")["batching"]
        service.measure(payload, 32, 1)
        capacity = service.measure(payload, 32, seconds).per_second
        process_tree.settle(service.pid)
        offered = {}
        for factor in times:
            offered[f"{factor:g}"] = _offered(service, payload, factor * capacity, seconds)
            process_tree.settle(service.pid)
    finally:
        service.stop()
    return {"network": bench.model, "batching": batching, "capacity": capacity, "offered": offered}


def _offered(service: Foldserve, payload: Payload, rate: float, seconds: int) -> dict[str, Any]:
    command = [
        sys.executable,
        str(_OPEN_LOOP),
        service.url(payload),
        f"--rate={rate}",
        f"--seconds={seconds}",
    ]
    command += [f"--body={payload.file}", f"--media-type={payload.media_type}"]
    command += [f"--core={service.bench.load_core}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return {"rate": rate, **said}


def report(found: dict[str, Any]) -> Iterator[str]:
    """A table of the rates, and the lines of what must hold at twice the capacity."""
    batching = found["batching"]
    yield (
        f"\n**{found['network']}, open loop, Poisson**: {found['capacity']:.4g} requests/s in a closed loop "
        f"of 32; the queue holds {batching['max_waiting_rows']:g} rows, a batch {batching['max_batch']:g}\n"
    )
    yield "| offered | requests/s | status | share | p50 ms | p99 ms | max ms | client late p99 ms |"
    yield "|---|---|---|---|---|---|---|---|"
    for factor, run in found["offered"].items():
        for status, seen in run["answers"].items():
            yield (
                f"| {factor}x | {run['rate']:.4g} | {status} | {seen['count'] / run['sent']:.1%} | "
                f"{seen['p50_ms']:.3g} | {seen['p99_ms']:.3g} | {seen['max_ms']:.3g} | "
                f"{run['late_ms']['p99']:.2g} |"
            )
    yield ""
    yield from _targets(found)


def _targets(found: dict[str, Any]) -> Iterator[str]:
    run = found["offered"].get("2")
    if run is None:
        return
    network, batching, answers = found["network"], found["batching"], run["answers"]
    batch_ms = 1000 * batching["max_batch"] / found["capacity"]
    limit = 3 * batch_ms * batching["max_waiting_rows"] / batching["max_batch"]
    others = run["unanswered"] + sum(seen["count"] for s, seen in answers.items() if s not in ("200", "429"))
    checks = [
        ("p99 ms of accepted requests at 2x", limit, answers.get("200", {}).get("p99_ms")),
        ("p99 ms of 429 at 2x", 20, answers.get("429", {}).get("p99_ms")),
        ("requests neither answered nor refused at 2x", 0, others),
    ]
    for words, bound, value in checks:
        if value is not None:
            verdict = "holds" if value <= bound else "MISSED"
            yield f"- {verdict}: {words}: target at most {bound:.4g}, measured {value:.4g} [{network}]"
