"""Images, as the network is shown them: normalised, and in training each time a little different."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from service.store.manifest import Input

_MAX_ROTATION = math.radians(10)
_MAX_SCALING = 0.1  # of the size
_MAX_SHIFT = 0.75  # pixels


def normalised(images: Tensor, row: Input) -> Tensor:
    """Network inputs of `images`, 0..1, `[N, C, H, W]`, as `row` would have them."""
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (row.mean, row.std))
    return (images - mean) / std


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of `[N, C, H, W]` shifted, turned and scaled at random, background around it."""
    rows = len(images)
    angle, scaling, right, down = torch.empty(4, rows).uniform_(-1, 1, generator=generator)
    shift = 2 * _MAX_SHIFT / images.shape[-1]  # grid_sample's image is 2 wide
    cosine, sine = torch.cos(_MAX_ROTATION * angle), torch.sin(_MAX_ROTATION * angle)
    size = 1 + _MAX_SCALING * scaling
    affine = torch.stack([cosine, -sine, right * shift, sine, cosine, down * shift], 1).reshape(rows, 2, 3)
    affine[:, :, :2] *= size[:, None, None]
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
