"""Run in a process of its own by test_layouts: a plan's calls as oneDNN lists them, and its copies, as JSON.

python -m tests.plan.layouts ARCHITECTURE SIDE PRECISION THREADS BATCH...
"""

from __future__ import annotations

import json
import sys

import torch

from service.network import catalog
from service.network.random_stats import randomise
from service.plan import onednn

from .lowered import lowered

MOVING = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::to_dense", "aten::to_mkldnn"}


def main(name: str, side: str, precision: str, threads: str, *batches: str) -> None:
    """Answer each batch once to warm up, once under oneDNN's own log and once under the profiler."""
    torch.set_num_threads(int(threads))
    vars(onednn)["is_small"] = lambda call, rows: False
    torch.manual_seed(0)
    net = catalog.build(name, {})
    randomise(net, 0)
    plan = lowered(net, torch.zeros(3, int(side), int(side)), getattr(torch, precision), 32)
    for batch in map(int, batches):
        rows = torch.randn(batch, 3, int(side), int(side))
        plan(rows)
        say(f"batch {batch}")
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
