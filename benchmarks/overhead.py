"""What the engine adds to a plan: from a reserved run to the answers in it, less the computing itself.

    python benchmarks/overhead.py [--cores 0,1] [--model digits] [--jobs 3000]

One job of one row at a time, from an event loop on the first core, as a worker has it, to an engine process
on the others. Prints microseconds, the median and the quartiles.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from service import settings, telemetry
from service.engine import arena, board
from service.engine.child import Child, Order
from service.engine.client import EngineClient
from service.engine.control import Kind, Message
from service.plan import openmp


async def measure(model: str, jobs: int, cores: list[int]) -> tuple[list[float], list[float]]:
    """Seconds that each job took beside its computing, and in it."""
    chosen = settings.read({"models": model})
    descriptor = board.create(1)
    client = EngineClient(chosen, board.Board(descriptor), 0, tell=lambda _: None)
    with telemetry.directory() as counts:
        order = Order(settings=chosen, counts=counts, cores=cores[1:] or cores)
        engine = await Child.start("service.engine")
        engine.tell(order.message((descriptor,)))
        await _introduced(client, engine, chosen.arena_slots)
        around, inside = [], []
        for _ in range(jobs):
            started = time.perf_counter()
            computing_s = await _answered(client, model)
            around.append(time.perf_counter() - started - computing_s)
            inside.append(computing_s)
        engine.tell(Message(Kind.DRAIN))
        await engine.ended()
    return around[jobs // 10 :], inside[jobs // 10 :]


async def _introduced(client: EngineClient, engine: Child, slots: int) -> None:
    """Wait for the engine's cards, and join it to the client."""
    while (message := await asyncio.to_thread(engine.control.receive)) and message.kind is not Kind.READY:
        client.hear(message)
    ours, theirs = socket.socketpair()
    memory = arena.create(slots)
    with theirs:
        engine.tell(Message(Kind.LINK, 0, descriptors=(theirs.fileno(), memory)))
    client.hear(Message(Kind.LINK, 0, descriptors=(ours.detach(), memory)))
    client.hear(Message(Kind.READY))


async def _answered(client: EngineClient, model: str) -> float:
    """Have a row of zeros computed; the seconds that the computing took."""
    deadline = time.monotonic() + 30.0
    card = client.editions.card(model)
    with client.reserve(card, 1, "uint8", deadline) as run:
        run.inputs[:] = 0
        answer = await client.infer(card, run, deadline)
        return answer.compute_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--jobs", type=int, default=3000)
    arguments = parser.parse_args()
    openmp.calm(os.environ)
    cores = [int(core) for core in arguments.cores.split(",")]
    os.sched_setaffinity(0, cores[:1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(arguments.model, arguments.jobs, cores))
    for name, seconds in zip(("engine", "plan"), measured, strict=True):
        low, middle, high = (1e6 * value for value in statistics.quantiles(seconds, n=4))
        print(f"{arguments.model}, {name}: {middle:.0f} us ({low:.0f} .. {high:.0f})")


if __name__ == "__main__":
    main()
