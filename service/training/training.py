"""Training of the shipped model: the `digits` architecture on scikit-learn's handwritten digits.

Nothing is chosen by the held-out rows: they are read once, after the last step, to measure what is published.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from service.errors import InvalidConfiguration, ModelRefused
from service.network import catalog
from service.training.descent import fit
from service.training.images import normalised
from service.training.publication import ARCHITECTURE, fill, input_of, provenance
from service.training.split import digits_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from service.store.manifest import Input, Manifest
    from service.store.model_store import ModelStore
    from service.training.descent import Progress

GOAL = 0.985
"""The share of held-out rows that a model must get right to be published."""
EPOCHS = 60
"""Passes over the training rows."""

_THREADS = 1  # more threads order the sums otherwise, and are no quicker on batches this small


@dataclass(frozen=True)
class Trained:
    """A published model, and how well it does on the held-out rows."""

    folder: Path
    manifest: Manifest
    correct: int
    """Held-out rows that it got right."""
    held_out_rows: int

    @property
    def accuracy(self) -> float:
        """The share of the held-out rows that it got right, 0..1."""
        return self.correct / self.held_out_rows


def train_digits(
    store: ModelStore,
    *,
    name: str = "digits",
    version: int = 1,
    epochs: int = EPOCHS,
    seed: int = 0,
    replace: bool = False,
    goal: float = GOAL,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train on the CPU, measure on the held-out rows, and publish.

    One seed gives the same bytes on the same machine and torch; another processor may round otherwise.

    Args:
        store: where the version is published; its folder is made where there is none.
        name: of the model in the store.
        version: of the model in the store.
        epochs: passes over the training rows, at least 1.
        seed: of the initial weights, the order of the rows and their augmentation.
        replace: whether a version that is in the store already may be replaced.
        goal: the share of held-out rows to get right, 0..1.
        progress: called after each epoch, in the calling thread.

    Raises:
        InvalidConfiguration: scikit-learn is not installed, or `epochs` is below 1.
        StoreError: a bad name or version, or one that is in the store already.
        ModelRefused: the goal is missed; nothing is published.
    """
    _refuse_early(store, name, version, epochs, replace=replace)
    split = digits_split()
    row = input_of(split.train_pixels)
    with _reproducible(seed) as generator:
        network = catalog.build(ARCHITECTURE, {})
        fit(
            network,
            split.train_pixels,
            split.train_labels,
            row,
            epochs=epochs,
            generator=generator,
            progress=progress,
        )
        correct = count_correct(network, split.held_out_pixels, split.held_out_labels, row)
    rows = len(split.held_out_labels)
    _require_goal(correct, rows, goal)
    said = provenance(split, correct, epochs=epochs, seed=seed)
    written = partial(fill, network, row, said, split.held_out_pixels[0])
    folder = store.publish(name, version, written, replace=replace)
    return Trained(folder, store.open(name, version).manifest, correct, rows)


@torch.inference_mode()
def count_correct(network: nn.Module, pixels: Tensor, labels: Tensor, row: Input) -> int:
    """How many rows the network, in evaluation mode, answers with their label.

    Args:
        network: answers float32 `[N, 1, 8, 8]` with logits `[N, classes]`.
        pixels: uint8 `[N, 1, 8, 8]`.
        labels: int64 `[N]`.
        row: how pixels become network inputs.
    """
    logits: Tensor = network(normalised(pixels / 255, row))
    return int((logits.argmax(1) == labels).sum())


def _require_goal(correct: int, rows: int, goal: float) -> None:
    if correct < goal * rows:
        raise ModelRefused(
            f"the network gets {correct} of {rows} held-out rows right ({correct / rows:.2%}), "
            f"below the goal of {goal:.2%}; nothing was published"
        )


@contextmanager
def _reproducible(seed: int) -> Iterator[torch.Generator]:
    """Torch's process-wide state set so that `seed` decides every bit, and put back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(_THREADS)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _refuse_early(store: ModelStore, name: str, version: int, epochs: int, *, replace: bool) -> None:
    """What `publish` would refuse, before a minute of training and not after it."""
    if epochs < 1:
        raise InvalidConfiguration(f"epochs must be at least 1, not {epochs}")
    store.check_publishable(name, version, replace=replace)
