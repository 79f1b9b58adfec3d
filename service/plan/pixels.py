"""Pixels: a plan must answer them as it does the network inputs that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph.parity import relative_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_VALUES = 256


def pixel_probe(row: Sequence[int]) -> Tensor:
    """One row of random pixels, `uint8`, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, _VALUES, list(row), dtype=torch.uint8, generator=generator)


def require_same(
    inputs: Tensor, pixels: Mapping[int, Tensor], tolerance: float, largest: float = 0.0
) -> None:
    """Raise `ModelRefused` where pixels are answered otherwise than the network inputs that they stand for.

    `inputs` is the answer to one row `[1, ...]` of network inputs, `pixels` that to so many copies of the
    row as pixels, `largest` how large the network's answers are: this one may happen to be near 0. What the
    network makes of inputs is proven elsewhere, so this needs no float64.
    """
    for size, answers in pixels.items():
        expected = inputs.double().expand(size, *inputs.shape[1:])
        error = relative_error(expected, answers.double(), largest)
        if not error <= tolerance:
            raise ModelRefused(
                f"parity failed: the answers to {size} rows of pixels differ by {error:.2e} from those to "
                f"the network inputs that they stand for, which is over {tolerance:.2e}"
            )
