"""oneDNN's fused calls beside ATen's, one layer at a time: from which size on is fusing worth its fixed cost?

    python benchmarks/operators.py [--core 0]

Microseconds per call at batch 1, one thread, float32, median; behind `service/plan/small.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

mkldnn = torch.ops.mkldnn

# Input and output channels, height and width, kernel.
CONVOLUTIONS = [
    (1, 32, 8, 3),
    (32, 32, 8, 3),
    (64, 64, 4, 3),
    (16, 16, 112, 1),
    (256, 64, 14, 1),
    (64, 64, 14, 3),
    (64, 64, 56, 1),
    (64, 64, 28, 3),
    (512, 512, 7, 3),
]
LINEARS = [(64, 10), (256, 64), (512, 1000), (2048, 1000), (4096, 4096)]


def microseconds(run: Callable[[], Tensor], calls: int = 300) -> float:
    """The median of so many calls."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times[calls // 10 :]) * 1e6


def convolution(c_in: int, c_out: int, side: int, kernel: int) -> tuple[float, float]:
    """ATen's convolution and ReLU, and oneDNN's with the ReLU in its epilogue."""
    x = torch.randn(1, c_in, side, side).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(c_out, c_in, kernel, kernel).contiguous(memory_format=torch.channels_last)
    bias, padding = torch.randn(c_out), kernel // 2
    geometry = ([padding] * 2, [1, 1], [1, 1], 1)
    packed = mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
    return (
        microseconds(lambda: F.conv2d(x, weight, bias, 1, padding).relu_()),
        microseconds(lambda: mkldnn._convolution_pointwise(x, packed, bias, *geometry, "relu", [], "")),
    )


def linear(c_in: int, c_out: int) -> tuple[float, float]:
    """The same of a linear layer."""
    x, weight, bias = torch.randn(1, c_in), torch.randn(c_out, c_in), torch.randn(c_out)
    packed = mkldnn._reorder_linear_weight(weight, 1)
    return (
        microseconds(lambda: F.linear(x, weight, bias).relu_()),
        microseconds(lambda: mkldnn._linear_pointwise(x, packed, bias, "relu", [], "")),
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {parser.parse_args().core})
    torch.set_num_threads(1)
    print("| layer | multiply-adds, millions | ATen | oneDNN, fused |\n|---|---|---|---|")
    with torch.inference_mode():
        for c_in, c_out, side, kernel in CONVOLUTIONS:
            work = c_in * c_out * side**2 * kernel**2 / 1e6
            aten, fused = convolution(c_in, c_out, side, kernel)
            name = f"{kernel}x{kernel} convolution, {c_in} to {c_out}, {side}x{side}"
            print(f"| {name} | {work:.2f} | {aten:.0f} | {fused:.0f} |")
        for c_in, c_out in LINEARS:
            aten, fused = linear(c_in, c_out)
            print(f"| linear, {c_in} to {c_out} | {c_in * c_out / 1e6:.2f} | {aten:.0f} | {fused:.0f} |")


if __name__ == "__main__":
    main()
