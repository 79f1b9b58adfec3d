"""Descent: stochastic gradient descent on the digits, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from service.training.images import augmented, normalised

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from service.store.manifest import Input

BATCH_ROWS = 64
_LEARNING_RATE = 0.05  # of 0.05 and 0.1, the better one in cross-validation on the training rows
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class Progress:
    """What is known after an epoch."""

    epoch: int
    """1 for the first."""
    epochs: int
    loss: float
    """Cross-entropy in nats, the mean over the epoch's augmented rows."""


def fit(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    row: Input,
    *,
    epochs: int,
    generator: torch.Generator,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Train `network` in place and leave it in evaluation mode.

    Stochastic gradient descent with Nesterov's momentum on the cross-entropy, the learning rate on a
    half cosine down to 0, every row shifted, turned and scaled at random each time.

    Args:
        network: answers float32 `[N, 1, 8, 8]` with logits `[N, classes]`.
        pixels: uint8 `[N, 1, 8, 8]`.
        labels: int64 `[N]`.
        row: how pixels become network inputs.
        epochs: passes over the rows, at least 1.
        generator: of the order of the rows and their augmentation.
        progress: called after each epoch.
    """
    steps = math.ceil(len(pixels) / BATCH_ROWS)  # in an epoch
    optimizer = torch.optim.SGD(
        network.parameters(), _LEARNING_RATE, _MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)
    network.train()
    for epoch in range(1, epochs + 1):
        loss = 0.0
        for batch in torch.randperm(len(pixels), generator=generator).tensor_split(steps):
            inputs = normalised(augmented(pixels[batch] / 255, generator), row)
            loss += len(batch) * _step(network, inputs, labels[batch], optimizer)
            schedule.step()
        if progress is not None:
            progress(Progress(epoch, epochs, loss / len(pixels)))
    network.eval()


def _step(network: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> float:
    loss = F.cross_entropy(network(inputs), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return loss.item()
