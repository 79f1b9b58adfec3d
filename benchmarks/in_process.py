"""The engine without a service around it, in a process of its own: what the cores could do at best.

    python benchmarks/in_process.py --model-store FOLDER --model resnet18

Loads the version as `foldserve serve` does and prints `ready MAX_BATCH`. Then reads lines `DTYPE BATCH
SECONDS`, calls the plan in a loop for so long with copies of one batch, and prints the seconds of each call.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.engine import allocator
from service.plan import openmp

openmp.calm(os.environ)  # before torch is imported

import numpy as np


def main() -> None:
    """Load, then run as each line of the input says."""
    arguments = _arguments()
    allocator.share_one_arena()
    import torch

    from service.engine.loading import load
    from service.plan import device
    from service.store.model_store import ModelStore

    device.set_threads(0)
    stored = ModelStore(arguments.model_store).open(arguments.model)
    plan = load(stored, torch.device("cpu")).plan
    gc.collect()
    gc.freeze()
    print("ready", plan.max_batch, flush=True)
    for line in sys.stdin:
        dtype, batch, seconds = line.split()
        rows = np.ones((int(batch), *stored.manifest.input.shape), dtype)
        times, until = [], time.perf_counter() + float(seconds)
        while time.perf_counter() < until:
            started = time.perf_counter()
            plan(torch.from_numpy(rows.copy())).numpy()  # the copy is one of a batch's rows into one array
            times.append(time.perf_counter() - started)
        print(json.dumps(times), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--model", default="digits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
