"""What a fold may cost: the passes that a fold adds, beside the norm that it removes.

    python benchmarks/folding.py [--cores 2]

The numbers behind `service/graph/price.py`. Values are channels-last float32; each cell is the median
of interleaved rounds, as a ratio to one norm, kept as the one pass that it is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 31
SHAPES = [(1, 64, 56, 56), (8, 64, 56, 56), (1, 256, 14, 14), (8, 256, 14, 14)]


def passes(x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The passes over `x`, `[N, C, H, W]`, by name; the first is the norm."""
    channels = x.shape[1]
    scale, shift = torch.rand(2, 1, channels, 1, 1)
    border = torch.rand(1, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
    pointwise, depthwise = torch.randn(channels, channels, 1, 1), torch.randn(channels, 1, 3, 3)
    return {
        "norm": lambda: torch.addcmul(shift, x, scale),
        "norm, then ReLU in place": lambda: torch.addcmul(shift, x, scale).relu_(),
        "clamp per channel": lambda: torch.clamp(x, min=shift),
        "ReLU": lambda: torch.relu(x),
        "border map added": lambda: x + border,
        "border map added in place": lambda: x.add_(border),
        "depthwise 3x3 once more": lambda: F.conv2d(x, depthwise, padding=1, groups=channels),
        "1x1 convolution once more": lambda: F.conv2d(x, pointwise),
    }


def seconds(run: Callable[[], Tensor], calls: int) -> float:
    """Seconds per call."""
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2)
    cores = sorted(os.sched_getaffinity(0))[: parser.parse_args().cores]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    columns = []
    with torch.inference_mode():
        for shape in SHAPES:
            runs = passes(torch.randn(shape).contiguous(memory_format=torch.channels_last))
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(ROUNDS):
                for name, run in runs.items():
                    times[name].append(seconds(run, 20))
            columns.append({name: statistics.median(values) for name, values in times.items()})
    print("| pass |", " | ".join("x".join(map(str, shape)) for shape in SHAPES), "|")
    print("|---|", "---|" * len(SHAPES), sep="")
    for name in columns[0]:
        print(f"| {name} |", " | ".join(f"{column[name] / column['norm']:.2f}" for column in columns), "|")


if __name__ == "__main__":
    main()
