"""The probe: made-up inputs that a network takes for what it was trained on, as far as its norms tell.

White noise is not that. In networks trained on photographs its variance behind the layers is a thirtieth of
the running one, and up to a quarter of all channels never get past their ReLU: a mistake in them would not
show. Noise whose amplitude falls with the square of the frequency, as that of photographs does, comes as
near as two real images do (docs/folding.md); the norms say which of several tries comes nearest.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from service.graph.chains import BATCH_NORMS
from service.graph.precision import Computation

if TYPE_CHECKING:
    from torch import fx

    from service.graph.capture import CapturedGraph

_ROWS = 2
_SPECTRA = [*((2.0, seed) for seed in range(4)), *((1.0, seed) for seed in range(3)), (0.0, 0)]
"""Exponents and seeds that are tried."""
_NORMS = 12
"""So many norms are listened to, from the first: behind them a large network takes most of its time."""
_STEP = 2.0**-10


@torch.inference_mode()
def probe(captured: CapturedGraph, rows: int = _ROWS) -> Tensor:
    """Network inputs `[rows, ...]`, float32, the same at every call.

    Of several tries it is the one on which the first norms see most nearly what they saw in training.
    """
    shape = [rows, *captured.example.shape[1:]]
    candidates = [noise(shape, exponent, seed) for exponent, seed in _SPECTRA]
    return min(candidates, key=lambda candidate: mismatch(captured.module, candidate))


def noise(shape: list[int], exponent: float, seed: int = 0) -> Tensor:
    """Float32 noise `[N, C, ...]`, of mean 0 and variance 1 in each channel, the same at every call.

    Its amplitude falls with the frequency to the power of `exponent`; 0 is white. Values are rounded so
    coarsely that no machine computes others.
    """
    generator = torch.Generator().manual_seed(seed)
    # Sums of integers, since what computes normal numbers is not the same on every processor.
    white = torch.randint(0, 256, [4, *shape], generator=generator).sum(0).double()
    coloured = _filtered(white - 4 * 127.5, exponent)
    axes = [axis for axis in range(coloured.dim()) if axis != 1]
    centred = coloured - coloured.mean(axes, keepdim=True)
    deviation = centred.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-12)
    return ((centred / deviation / _STEP).round() * _STEP).float()


@torch.inference_mode()
def mismatch(module: fx.GraphModule, rows: Tensor) -> float:
    """How far the first norms' statistics of `rows` are from the running ones; 0 where there is no norm.

    Per channel the squared shift of the mean in running deviations, and a quarter of the squared logarithm
    of the ratio of variances; the mean of both over channels, and over norms. Infinite where it is no number.
    """
    listening = _Listening(module)
    with suppress(_Enough):
        listening.run(rows)
    found = sum(listening.found) / (len(listening.found) or 1)
    return found if math.isfinite(found) else math.inf


class _Enough(Exception):
    """As many norms were heard as are wanted."""


class _Listening(Computation):
    """The graph in float32, up to the last norm that is listened to."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, torch.float32)
        self.found: list[float] = []

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in BATCH_NORMS and args[3] is not None:
            self.found.append(_mismatch(args[0].float(), args[3].float(), args[4].float()))
            if len(self.found) == _NORMS:
                raise _Enough
        return super().call_function(target, args, kwargs)


def _mismatch(x: Tensor, running_mean: Tensor, running_var: Tensor) -> float:
    axes = [axis for axis in range(x.dim()) if axis != 1]
    expected = running_var.clamp_min(torch.finfo(torch.float32).tiny)
    shift = (x.mean(axes) - running_mean).square() / expected
    ratio = (x.var(axes, unbiased=False) / expected).clamp_min(1e-6).log().square()
    return float(shift.mean() + ratio.mean() / 4)


def _filtered(white: Tensor, exponent: float) -> Tensor:
    """Noise `[N, C, ...]`, its amplitude divided by a power of the frequency along the axes behind C."""
    sizes = list(white.shape[2:])
    if exponent == 0 or math.prod(sizes) < 2:
        return white
    axes = list(range(2, white.dim()))
    squared = torch.zeros(sizes, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        line = torch.fft.fftfreq(size, dtype=torch.float64).square()
        squared = squared + line.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    frequency = squared.sqrt().clamp_min(1 / max(sizes))
    filtered: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) / frequency**exponent, dim=axes)
    return filtered.real
