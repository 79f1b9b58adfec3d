"""Scenes: generated photographs of six kinds of figures, in any place, size and pale colour, 120x160 pixels.

The light is warm, as it mostly is: red is above blue by 0.08 on average, as in the mean of ImageNet.
"""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from service.network.batch_norm import BatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HEIGHT, WIDTH = 120, 160
_BATCH_ROWS = 64


def scenes(random: np.random.Generator, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Images uint8 `[H, W, 3]` and their labels, 0 to 5."""
    labels = random.integers(0, 6, count)
    grid = np.mgrid[-1 : 1 : HEIGHT * 1j, -WIDTH / HEIGHT : WIDTH / HEIGHT : WIDTH * 1j]
    return [_scene(random, int(label), grid) for label in labels], labels


def jpeg(image: np.ndarray) -> bytes:
    """An image `[H, W, 3]` as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    """An image `[H, W]` or `[H, W, 3]` as a file that loses nothing."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _scene(random: np.random.Generator, label: int, grid: np.ndarray) -> np.ndarray:
    size, angle = random.uniform(0.3, 0.6), random.uniform(0, 2 * math.pi)
    down, right = grid - random.uniform(-0.4, 0.4, (2, 1, 1))
    u = (math.cos(angle) * right + math.sin(angle) * down) / size
    v = (-math.sin(angle) * right + math.cos(angle) * down) / size
    distance = np.hypot(u, v)
    inside = (
        distance < 1,
        np.maximum(abs(u), abs(v)) < 0.85,
        (v > -0.6) & (v + 1.7 * abs(u) < 0.9),
        (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1),
        (distance < 1) & (distance > 0.6),
        (np.maximum(abs(u), abs(v)) < 0.95) & (np.sin(9 * u) > 0),
    )[label]
    ground, slope = random.uniform(20, 235, (3, 1, 1)), random.uniform(-50, 50, (2, 1, 1))
    ink = (ground + random.choice([-1, 1], (3, 1, 1)) * random.uniform(60, 160, (3, 1, 1))) % 256
    image = np.where(inside, ink, ground + (slope * grid).sum(0))
    image = 0.4 * image + 0.6 * image.mean(0)
    light = np.array([random.uniform(0.95, 1.15), 1.0, random.uniform(0.75, 1.0)]) * random.uniform(0.7, 1.1)
    image = image * light[:, None, None] + random.normal(0, 5, image.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


class ConvNet(nn.Module):
    """Seven convolutions, each with its norm: `[N, 3, 64, 64]` to logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = [3, 16, 16, 32, 32, 48, 48, 64]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + number % 2, padding=1, bias=False)
            for number, (a, b) in enumerate(pairwise(widths), 1)
        )
        self.norms = nn.ModuleList(BatchNorm2d(width) for width in widths[1:])
        self.last = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        logits: Tensor = self.last(x.mean((2, 3)))
        return logits


def trained(
    epochs: Sequence[np.ndarray],
    labels: np.ndarray,
    normalised: Callable[[np.ndarray], Tensor],
    seed: int = 0,
) -> ConvNet:
    """A network that saw these rows: uint8 `[N, 3, 64, 64]`, for each epoch the same or augmented anew."""
    torch.manual_seed(seed)
    network, y = ConvNet(int(labels.max()) + 1), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(epochs) * (len(y) // _BATCH_ROWS))
    network.train()
    for pixels in epochs:
        for batch in _batches(len(y)):
            optimizer.zero_grad()
            F.cross_entropy(network(normalised(pixels[batch.numpy()])), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _batches(rows: int) -> Iterator[Tensor]:
    yield from torch.randperm(rows)[: rows // _BATCH_ROWS * _BATCH_ROWS].split(_BATCH_ROWS)


def augmented(random: np.random.Generator, images: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Rows `[N, 3, side, side]`: a random part of each, 35 % of it or more, mirrored or not."""
    return np.stack([_augmented(random, Image.fromarray(image), side) for image in images])


def _augmented(random: np.random.Generator, image: Image.Image, side: int) -> np.ndarray:
    area = image.width * image.height * random.uniform(0.35, 1)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = min(math.sqrt(area * ratio), image.width), min(math.sqrt(area / ratio), image.height)
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    row = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)
    row = row[..., :: random.choice([-1, 1])] * random.uniform(0.7, 1.3)
    return ((row - row.mean()) * random.uniform(0.7, 1.3) + row.mean()).clip(0, 255).astype(np.uint8)
