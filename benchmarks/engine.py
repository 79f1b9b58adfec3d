"""The plan against eager PyTorch, unfolded, on the same cores in the same run.

    python benchmarks/engine.py [--model NAME] [--batches 1,8,64] [--cores 2] [--device auto]

The contenders take turns, so that a noisy neighbour disturbs all of them alike; each cell is the
median of the rounds with the quartiles beside it, and the ratio of the medians to eager.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.engine.loading import load
from service.network import catalog
from service.network.adopt import norms
from service.plan import device as devices
from service.store import weights
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ROUNDS = 15


def main() -> None:
    """Measure and print one table."""
    arguments = _arguments()
    _pin(arguments.cores)
    device = devices.choose(arguments.device)
    stored = ModelStore(arguments.store).open(arguments.model)
    manifest = stored.manifest
    eager = catalog.build(manifest.architecture, manifest.options)
    weights.assign(eager, weights.read(stored))
    loaded = load(stored, device, max_batch=max(arguments.batches))
    eager = _with_torchs_norms(eager).to(device)
    channels_last = copy.deepcopy(eager).to(memory_format=torch.channels_last)
    print(
        f"{stored} on {devices.describe(device)}, torch {torch.__version__}, {platform.processor() or 'CPU'}"
    )
    print(f"{'batch':>5}  {'contender':<22} {'ms (quartiles)':<26} {'rows/s':>10}  ratio")
    for batch in arguments.batches:
        rows = torch.randn(batch, *manifest.input.shape)
        contenders: dict[str, Callable[[], Tensor]] = {
            "eager, unfolded": lambda rows=rows: eager(rows.to(device)).cpu(),
            "eager, channels-last": lambda rows=rows: channels_last(
                rows.to(device, memory_format=torch.channels_last)
            ).cpu(),
            "foldserve plan (aten)": lambda rows=rows: loaded.plan(rows),
        }
        _print_rows(batch, _measured(contenders, arguments.seconds))


def _with_torchs_norms(network: nn.Module) -> nn.Module:
    """The network with torch's own norms: the fused kernel that people run today, and not our definition."""
    for name, norm in norms(network).items():
        kind = getattr(nn, type(norm).__name__)
        theirs = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        theirs.load_state_dict(norm.state_dict())
        network.set_submodule(name, theirs)
    return network.eval()


def _pin(cores: int) -> None:
    """Stay on the first `cores` of those that this process may use, one thread each."""
    allowed = sorted(os.sched_getaffinity(0))[: cores or None]
    os.sched_setaffinity(0, allowed)
    torch.set_num_threads(len(allowed))


def _measured(contenders: dict[str, Callable[[], Tensor]], seconds: float) -> dict[str, list[float]]:
    """Seconds per call: `ROUNDS` values for each contender, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        calls = {name: _calls(run, seconds / ROUNDS / len(contenders)) for name, run in contenders.items()}
        for _ in range(ROUNDS):
            for name, run in contenders.items():
                started = time.perf_counter()
                for _ in range(calls[name]):
                    run()
                times[name].append((time.perf_counter() - started) / calls[name])
    return times


def _calls(run: Callable[[], Tensor], seconds: float) -> int:
    """How many calls take about `seconds`, after a warm-up."""
    for _ in range(5):
        run()
    started = time.perf_counter()
    run()
    return max(1, int(seconds / (time.perf_counter() - started)))


def _print_rows(batch: int, times: dict[str, list[float]]) -> None:
    reference = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        spread = f"{middle * 1000:.3f} ({low * 1000:.3f} .. {high * 1000:.3f})"
        print(f"{batch:>5}  {name:<22} {spread:<26} {batch / middle:>10.0f}  {reference / middle:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="digits")
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="per batch size")
    parser.add_argument("--cores", type=int, default=0, help="pin to so many; 0: all")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
