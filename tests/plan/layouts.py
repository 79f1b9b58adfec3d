"""Run in a process of its own by test_layouts: a plan's calls as oneDNN lists them, and its copies, as JSON.

python -m tests.plan.layouts ARCHITECTURE SIDE THREADS BATCH...

THREADS are numbers separated by commas, with a plan for each.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import torch

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.network import catalog
from service.network.random_stats import randomise
from service.plan import onednn
from service.plan.plan import lower
from service.plan.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from service.plan.plan import Plan

MOVING = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::to_dense", "aten::to_mkldnn"}


def main(name: str, side: str, threads: str, *batches: str) -> None:
    """Answer each batch once to warm up, once under oneDNN's own log and once under the profiler."""
    vars(onednn)["is_small"] = lambda call, rows: False
    torch.manual_seed(0)
    net = catalog.build(name, {})
    randomise(net, 0)
    folded = fold_graph(Reference.of(capture(net, torch.zeros(2, 3, int(side), int(side))))).module
    for number in map(int, threads.split(",")):
        torch.set_num_threads(number)
        plan = lower(
            folded,
            Preprocessing([0.0] * 3, [1.0] * 3),
            precision=torch.float32,
            device=torch.device("cpu"),
            max_batch=32,
        )
        for batch in map(int, batches):
            watch(plan, torch.randn(batch, 3, int(side), int(side)))


def watch(plan: Plan, rows: Tensor) -> None:
    plan(rows)
    say(f"batch {len(rows)}")
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        plan(rows)
    with torch.profiler.profile(record_shapes=True) as profile:
        plan(rows)
    moved = [e.name for e in profile.events() if e.name in MOVING and len(e.input_shapes[0]) == 4]
    say(json.dumps(moved))


def say(line: str) -> None:
    """Write a line at once, so that oneDNN's come behind it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
