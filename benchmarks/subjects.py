"""Subjects of `drift.py`: trained networks, rows that they were trained on, and rows that were held out."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph.capture import capture
from service.graph.norm_inputs import norm_inputs
from service.inspection.rows import Rows
from service.inspection.watched import Watched, WatchedNorm, parts
from service.network import catalog
from service.network.adopt import norms
from service.network.batch_norm import BatchNorm2d
from service.plan.observation import Observation
from service.plan.preprocessing import Preprocessing
from service.store import weights
from service.store.model_store import ModelStore
from service.training.split import digits_split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STORE = Path(__file__).resolve().parents[1] / "model_store"
_BATCH_ROWS = 64
_REMEMBERED = 19  # batches, of a momentum of 0.1


class Subject:
    """A network, watched."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        held_out: tuple[np.ndarray, np.ndarray],
        trained_on: np.ndarray,
    ) -> None:
        self.name = name
        self.network = network.eval()
        self.pixels, self.labels = held_out
        self.trained_on = trained_on
        self.classes = int(self.labels.max()) + 1
        self.normalisation = mean, std
        self._preprocessing = Preprocessing(mean, std)
        captured = capture(network, torch.zeros(2, *self.pixels.shape[1:]))
        called = norms(network)
        inputs = norm_inputs(captured, called)
        part_of = parts(len(inputs))
        chosen = [(n, part_of[i]) for i, n in enumerate(inputs) if i in part_of]
        self.watched = Watched(tuple(_watched(name, part, called[name]) for name, part in chosen))
        watched = [inputs[name] for name, _ in chosen]
        self._observation = Observation(captured.module, watched, self._preprocessing, torch.device("cpu"))

    @torch.inference_mode()
    def rows(self, pixels: np.ndarray) -> Rows:
        """What its norms see of uint8 rows, and its answers."""
        found = []
        for start in range(0, len(pixels), _BATCH_ROWS):
            part = pixels[start : start + _BATCH_ROWS]
            inputs = self._preprocessing.normalised(torch.from_numpy(part))
            self._observation.begin(part)
            self._observation.run(math.inf)
            found.append((*self._observation.finished(), self.network(inputs).argmax(1).numpy()))
        return Rows(*map(np.concatenate, zip(*found, strict=True)))

    def moments(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What its norms see of network inputs, float32 `[N, C, H, W]`: means and variances."""
        found = []
        for start in range(0, len(inputs), _BATCH_ROWS):
            self._observation.begin(inputs[start : start + _BATCH_ROWS])
            self._observation.run(math.inf)
            found.append(self._observation.finished())
        mean, var = map(np.concatenate, zip(*found, strict=True))
        return mean, var


def _watched(name: str, part: str, norm: nn.Module) -> WatchedNorm:
    vectors = (norm.running_mean.numpy(), norm.running_var.numpy(), norm.weight.detach().numpy())
    return WatchedNorm(name, part, *vectors, norm.eps, float(_REMEMBERED * _BATCH_ROWS))


def shipped(_seed: int) -> Subject:
    """The digits model of the store."""
    stored = ModelStore(STORE).open("digits")
    network = catalog.build("digits", {})
    weights.assign(network, weights.read(stored))
    given, split = stored.manifest.input, digits_split()
    held_out = split.held_out_pixels.numpy(), split.held_out_labels.numpy()
    return Subject("digits", network, given.mean, given.std, held_out, split.train_pixels.numpy())


def plain(seed: int) -> Subject:
    """The same network, trained on the digits as they are."""
    torch.manual_seed(seed)
    network, split = catalog.build("digits", {}), digits_split()
    x, y = split.train_pixels.numpy(), split.train_labels.numpy()
    mean, std = [float(x.mean() / 255)], [float(x.std() / 255)]
    _trained(network, Preprocessing(mean, std), x, y, epochs=60)
    held_out = split.held_out_pixels.numpy(), split.held_out_labels.numpy()
    return Subject("digits", network, mean, std, held_out, x)


def shapes(seed: int) -> Subject:
    """Six kinds of figures, in any colour and place, on a shaded ground."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    (x, y), held_out = _figures(random, 3000), _figures(random, 1000)
    network = Shapes()
    _trained(network, Preprocessing([0.5] * 3, [0.25] * 3), x, y, epochs=8)
    return Subject("shapes", network, [0.5] * 3, [0.25] * 3, held_out, x)


class Shapes(nn.Module):
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


def _trained(
    network: nn.Module, preprocessing: Preprocessing, x: np.ndarray, y: np.ndarray, *, epochs: int
) -> None:
    """By gradient descent, the rate on a half cosine down to 0, the rows as they are."""
    inputs, labels = preprocessing.normalised(torch.from_numpy(x)), torch.from_numpy(y)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * len(x) // _BATCH_ROWS
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // _BATCH_ROWS * _BATCH_ROWS].split(_BATCH_ROWS):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def _figures(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[N, 3, 64, 64]` and their labels."""
    labels = random.integers(0, 6, count)
    grid = np.mgrid[-1:1:64j, -1:1:64j]
    return np.stack([_figure(random, int(label), grid) for label in labels]), labels


def _figure(random: np.random.Generator, label: int, grid: np.ndarray) -> np.ndarray:
    size, angle = random.uniform(0.25, 0.55), random.uniform(0, 2 * math.pi)
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
    shaded = ground + (slope * grid).sum(0)
    ink = (ground + random.choice([-1, 1], (3, 1, 1)) * random.uniform(60, 160, (3, 1, 1))) % 256
    image = np.where(inside, ink, shaded) + random.normal(0, 8, (3, 64, 64))
    return image.clip(0, 255).astype(np.uint8)


SUBJECTS: dict[str, Callable[[int], Subject]] = {"shipped": shipped, "plain": plain, "shapes": shapes}
