"""What the engine adds to a plan: from a submitted job to the returned rows, less the plan's own time.

    python benchmarks/overhead.py [--cores 0,1] [--model digits] [--jobs 3000]

One job of one row at a time, from an event loop as the web side has it, to an engine in the same process.
Prints microseconds, the median and the quartiles.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.engine import allocator
from service.plan import openmp

openmp.calm(os.environ)  # before torch is imported
allocator.share_one_arena()

import numpy as np
import uvloop

from service import settings
from service.batching.batcher import Batcher
from service.engine.client import EngineClient
from service.engine.engine import Engine
from service.store.model_store import ModelStore
from service.telemetry import Telemetry


class TimedPlan:
    """A plan that notes how long each call takes."""

    def __init__(self, plan: object) -> None:
        self.plan = plan
        self.seconds = 0.0

    def __call__(self, rows: object) -> object:
        started = time.perf_counter()
        answer = self.plan(rows)  # type: ignore[operator]
        self.seconds = time.perf_counter() - started
        return answer


async def measure(model: str, jobs: int) -> tuple[list[float], list[float]]:
    """Seconds that each job took beside the plan, and in the plan."""
    chosen = settings.read({"models": model})
    batcher = Batcher(chosen.limits)
    client = EngineClient(batcher)
    engine = Engine(ModelStore(chosen.model_store), chosen, batcher, Telemetry(), client.hear)
    engine.start()
    await client.is_ready.wait()
    card = client.card(model)
    timed = TimedPlan(engine._plans[card.key])
    engine._plans[card.key] = timed  # type: ignore[assignment]
    row = np.zeros((1, *card.facts.manifest.input.shape), np.uint8)
    around, inside = [], []
    for _ in range(jobs):
        started = time.perf_counter()
        await client.infer(card.key, row, 30.0)
        took = time.perf_counter() - started
        around.append(took - timed.seconds)
        inside.append(timed.seconds)
    batcher.close()
    await client.stopped.wait()
    return around[jobs // 10 :], inside[jobs // 10 :]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--jobs", type=int, default=3000)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name, seconds in zip(
            ("engine", "plan"), runner.run(measure(arguments.model, arguments.jobs)), strict=True
        ):
            low, middle, high = (1e6 * value for value in statistics.quantiles(seconds, n=4))
            print(f"{arguments.model}, {name}: {middle:.0f} us ({low:.0f} .. {high:.0f})")


if __name__ == "__main__":
    main()
