"""Scenes: generated photographs, with light and colours that are no more symmetric than those outdoors are.

Six kinds of figures, rather warm in colour, on grounds that are rather cold, in any place, size and light,
under a light that is warmer or colder. JPEGs of 120x160 pixels.
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
_BATCH_ROWS = 32


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
    slope = random.uniform(-50, 50, (2, 1, 1))
    shaded = _colour(random, warmth=0.05) + (slope * grid).sum(0)
    image = np.where(inside, _colour(random, warmth=0.3), shaded)
    light = np.array([random.uniform(0.95, 1.15), 1.0, random.uniform(0.8, 1.0)]) * random.uniform(0.8, 1.1)
    image = image * light[:, None, None] + random.normal(0, 8, image.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _colour(random: np.random.Generator, warmth: float) -> np.ndarray:
    """Red, green and blue, `[3, 1, 1]`, of any brightness; `warmth`: how far red is above blue."""
    towards_red = random.normal(warmth, 0.25)
    tint = np.array([1 + towards_red, 1 + random.normal(0, 0.1), 1 - towards_red])
    colour: np.ndarray = (random.uniform(40, 200) * tint).reshape(3, 1, 1)
    return colour


class ConvNet(nn.Module):
    """Seven convolutions, each with its norm: `[N, 3, 64, 64]` to six logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 16, 32, 32, 48, 48, 64]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + number % 2, padding=1, bias=False)
            for number, (a, b) in enumerate(pairwise(widths), 1)
        )
        self.norms = nn.ModuleList(BatchNorm2d(width) for width in widths[1:])
        self.last = nn.Linear(widths[-1], 6)

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
    network, y = ConvNet(), torch.from_numpy(labels)
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
