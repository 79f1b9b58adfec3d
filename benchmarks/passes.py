"""Passes over whole tensors: pixels that become network inputs, and kept norms with their activation.

    python benchmarks/passes.py [--core 0]

Microseconds, one thread, float32, median; the contenders of a line take turns. The second table is what
`kept_norms.LEAST_ELEMENTS` comes from.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from service.plan.preprocessing import PixelPass, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
CHANNELS_LAST = torch.channels_last
ROWS = [(1, 8, 8), (3, 224, 224)]
KEPT = [(64, 56), (256, 28), (512, 14), (512, 7)]
ACTIVATIONS: dict[str, tuple[tuple[Any, ...], Callable[[Tensor], Tensor]]] = {
    "relu": (("relu", [], ""), aten.relu_),
    "hardswish": (("hardswish", [], ""), aten.hardswish_),
    "silu": (("swish", [], ""), aten.silu_),
    "gelu": (("gelu", [], "none"), aten.gelu_),
}


def microseconds(runs: list[Callable[[], Tensor]], rounds: int = 60) -> list[float]:
    """The median of each."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, own in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            own.append(time.perf_counter() - started)
    return [statistics.median(own[rounds // 10 :]) * 1e6 for own in times]


def pixels(row: tuple[int, ...], batch: int) -> list[float]:
    """Network inputs; pixels in one pass; pixels whose map is in the first layers' weights."""
    given = torch.randint(0, 256, (batch, *row), dtype=torch.uint8)
    inputs = given.float()
    normalise = PixelPass(Preprocessing([0.5] * row[0], [0.25] * row[0]), row, torch.device("cpu"))
    return microseconds(
        [
            lambda: inputs.to(memory_format=CHANNELS_LAST),
            lambda: normalise(given.to(memory_format=CHANNELS_LAST)),
            lambda: given.to(memory_format=CHANNELS_LAST).to(torch.float32),
        ]
    )


def kept_norm(channels: int, side: int, batch: int, activation: str) -> list[float]:
    """Scale and shift, then the activation in place; a 1x1 convolution per channel with it inside."""
    epilogue, in_place = ACTIVATIONS[activation]
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=CHANNELS_LAST)
    scale, shift = torch.rand(channels, 1, 1) + 0.5, torch.randn(channels, 1, 1)
    weight, bias = scale.reshape(channels, 1, 1, 1).contiguous(), shift.reshape(-1).contiguous()
    geometry = ([0, 0], [1, 1], [1, 1], channels)
    packed = mkldnn._reorder_convolution_weight(weight, *geometry, [1, channels, side, side])
    return microseconds(
        [
            lambda: in_place(aten.addcmul(shift, x, scale)),
            lambda: mkldnn._convolution_pointwise(x, packed, bias, *geometry, *epilogue),
        ]
    )


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {parser.parse_args().core})
    torch.set_num_threads(1)
    with torch.inference_mode():
        print("| row | batch | network inputs | pixels, one pass | pixels, in the first layers |")
        print("|---|---|---|---|---|")
        for row in ROWS:
            for batch in (1, 8):
                times = " | ".join(f"{each:.0f}" for each in pixels(row, batch))
                print(f"| {'x'.join(map(str, row))} | {batch} | {times} |")
        print("\n| kept norm | batch | activation | two calls | one call |\n|---|---|---|---|---|")
        for channels, side in KEPT:
            for batch in (1, 8):
                for activation in ACTIVATIONS:
                    times = " | ".join(f"{each:.0f}" for each in kept_norm(channels, side, batch, activation))
                    print(f"| {channels}x{side}x{side} | {batch} | {activation} | {times} |")


if __name__ == "__main__":
    main()
