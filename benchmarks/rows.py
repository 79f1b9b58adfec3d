"""What one row costs in batches of different sizes, on one core.

    python benchmarks/rows.py [--core 0] [--models digits,resnet50] [--rounds 3]

Prints the median milliseconds of CPU time per row; the batch sizes take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.engine import allocator
from service.plan import openmp

openmp.calm(os.environ)  # before torch is imported
allocator.share_one_arena()
allocator.keep()

import torch
from plans import random_plan

if TYPE_CHECKING:
    from service.plan.plan import Plan

MODELS = "digits,mobilenet_v2,resnet18,efficientnet_b0,densenet121,resnet50"
SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Print one line per model."""
    arguments = _arguments()
    os.sched_setaffinity(0, [arguments.core])
    torch.set_num_threads(1)
    print("| network |", " | ".join(map(str, SIZES)), "|")
    print("|---" * (len(SIZES) + 1) + "|")
    for model in arguments.models.split(","):
        plan, row = random_plan(model, max(SIZES))
        batches = {size: torch.randn(size, *row) for size in SIZES}
        for rows in batches.values():
            plan(rows)
        times = {size: [_per_row(plan, batches[size])] for size in SIZES}
        for _ in range(arguments.rounds - 1):
            for size, rows in batches.items():
                times[size].append(_per_row(plan, rows))
        print(
            "|",
            model,
            "|",
            " | ".join(f"{statistics.median(t):.3f}" for t in times.values()),
            "|",
            flush=True,
        )


def _per_row(plan: Plan, rows: torch.Tensor) -> float:
    """Milliseconds of CPU time."""
    calls = max(1, 8 // len(rows))
    started = time.process_time()
    for _ in range(calls):
        plan(rows)
    return (time.process_time() - started) / calls / len(rows) * 1000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
