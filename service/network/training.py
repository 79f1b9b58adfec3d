"""Training of the shipped model: the `digits` architecture on scikit-learn's handwritten digits.

The data set is the test half of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998,
https://archive.ics.uci.edu/dataset/80): 1,797 images of 8x8 pixels by 13 writers.

Nothing is chosen by the held-out rows: they are read once, after the last step, to measure what is published.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.nn import functional as F

from service.errors import InvalidConfiguration, ModelRefused
from service.network import catalog
from service.store import manifest as manifests
from service.store import weights
from service.store.manifest import Input, Manifest, Output, Serving, Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from service.store.model_store import ModelStore

ARCHITECTURE = "digits"
GOAL = 0.985
"""The share of held-out rows that a model must get right to be published."""
EPOCHS = 60
"""Passes over the training rows."""

_LABELS_FILE = "labels.txt"
_WEIGHTS_FILE = "weights.safetensors"
_EXAMPLE_FILE = "example.png"
_LABELS = tuple("0123456789")
_HELD_OUT_ROWS = 719
_SPLIT_SEED = 0  # not the training's seed: a row that is held out stays so for every model
_BATCH_ROWS = 64
_LEARNING_RATE = 0.05  # of 0.05 and 0.1, the better one in cross-validation on the training rows
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_THREADS = 1  # more threads order the sums otherwise, and are no quicker on batches this small

_MAX_ROTATION = math.radians(10)
_MAX_SCALING = 0.1  # of the size
_MAX_SHIFT = 0.75  # pixels


@dataclass(frozen=True)
class DigitsSplit:
    """The data set in two parts, each in the data set's order.

    Pixels are uint8 `[N, 1, 8, 8]`, 0 is background and 255 is ink; labels and indices are int64
    `[N]`, an index being the row's place in scikit-learn's data set.
    """

    train_pixels: Tensor
    train_labels: Tensor
    held_out_pixels: Tensor
    held_out_labels: Tensor
    held_out_indices: Tensor


@dataclass(frozen=True)
class Progress:
    """What is known after an epoch."""

    epoch: int
    """1 for the first."""
    epochs: int
    loss: float
    """Cross-entropy in nats, the mean over the epoch's augmented rows."""


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


def digits_split() -> DigitsSplit:
    """The same split every time: 1,078 rows to train on and 719 held out, stratified by label.

    The writers are not known, so both parts hold digits by the same hands.

    Raises `InvalidConfiguration` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - serving does without scikit-learn
        from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above
    except ImportError as error:
        raise InvalidConfiguration(
            "the digits come with scikit-learn, which is not installed: pip install 'foldserve[train]'"
        ) from error
    values, labels = load_digits(return_X_y=True)  # [1797, 64] of 0..16, [1797]
    train, held_out = (
        torch.tensor(part).sort().values
        for part in train_test_split(
            range(len(labels)), test_size=_HELD_OUT_ROWS, stratify=labels, random_state=_SPLIT_SEED
        )
    )
    pixels = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    return DigitsSplit(pixels[train], targets[train], pixels[held_out], targets[held_out], held_out)


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
    row = _input(split.train_pixels)
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
    if correct < goal * rows:
        raise ModelRefused(
            f"the network gets {correct} of {rows} held-out rows right ({correct / rows:.2%}), "
            f"below the goal of {goal:.2%}; nothing was published"
        )
    provenance = _provenance(split, correct, epochs=epochs, seed=seed)
    folder = store.publish(
        name, version, partial(_fill, network, row, provenance, split.held_out_pixels[0]), replace=replace
    )
    return Trained(folder, store.open(name, version).manifest, correct, rows)


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
    steps = math.ceil(len(pixels) / _BATCH_ROWS)  # in an epoch
    optimizer = torch.optim.SGD(
        network.parameters(), _LEARNING_RATE, _MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)
    network.train()
    for epoch in range(1, epochs + 1):
        loss = 0.0
        for batch in torch.randperm(len(pixels), generator=generator).tensor_split(steps):
            inputs = _normalised(_augmented(pixels[batch] / 255, generator), row)
            loss += len(batch) * _step(network, inputs, labels[batch], optimizer)
            schedule.step()
        if progress is not None:
            progress(Progress(epoch, epochs, loss / len(pixels)))
    network.eval()


@torch.inference_mode()
def count_correct(network: nn.Module, pixels: Tensor, labels: Tensor, row: Input) -> int:
    """How many rows the network, in evaluation mode, answers with their label.

    Args:
        network: answers float32 `[N, 1, 8, 8]` with logits `[N, classes]`.
        pixels: uint8 `[N, 1, 8, 8]`.
        labels: int64 `[N]`.
        row: how pixels become network inputs.
    """
    logits: Tensor = network(_normalised(pixels / 255, row))
    return int((logits.argmax(1) == labels).sum())


def _step(network: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> float:
    loss = F.cross_entropy(network(inputs), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return loss.item()


def _normalised(images: Tensor, row: Input) -> Tensor:
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (row.mean, row.std))
    return (images - mean) / std


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of `[N, 1, H, W]` shifted, turned and scaled at random, background around it."""
    rows = len(images)
    angle, scaling, right, down = torch.empty(4, rows).uniform_(-1, 1, generator=generator)
    shift = 2 * _MAX_SHIFT / images.shape[-1]  # grid_sample's image is 2 wide
    cosine, sine = torch.cos(_MAX_ROTATION * angle), torch.sin(_MAX_ROTATION * angle)
    size = 1 + _MAX_SCALING * scaling
    affine = torch.stack([cosine, -sine, right * shift, sine, cosine, down * shift], 1).reshape(rows, 2, 3)
    affine[:, :, :2] *= size[:, None, None]
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


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


def _input(pixels: Tensor) -> Input:
    """How the rows become network inputs; their mean and deviation are rounded here, before training."""
    values = pixels.double() / 255
    return Input(
        shape=list(pixels.shape[1:]),
        colour="grayscale",
        mean=[round(values.mean().item(), 4)],
        std=[round(values.std(correction=0).item(), 4)],
        example=_EXAMPLE_FILE,
    )


def _provenance(split: DigitsSplit, correct: int, *, epochs: int, seed: int) -> dict[str, Any]:
    rows = len(split.held_out_labels)
    return {
        "data": {
            "name": "Optical Recognition of Handwritten Digits, the test half, as bundled with scikit-learn",
            "authors": "E. Alpaydin and C. Kaynak, 1998",
            "source": "https://archive.ics.uci.edu/dataset/80",
            "licence": "CC BY 4.0",
            "pixels": "8 bits: round(value * 255 / 16)",
            "rows": len(split.train_labels) + rows,
            "split": f"stratified by label, seed {_SPLIT_SEED}; writers are not kept apart",
        },
        "training": {
            "rows": len(split.train_labels),
            "epochs": epochs,
            "batch": _BATCH_ROWS,
            "seed": seed,
            "torch": str(torch.__version__),
        },
        "held_out": {"rows": rows, "correct": correct, "accuracy": round(correct / rows, 4)},
    }


def _fill(network: nn.Module, row: Input, provenance: dict[str, Any], example: Tensor, folder: Path) -> None:
    Image.fromarray(example[0].numpy()).save(folder / _EXAMPLE_FILE)
    (folder / _LABELS_FILE).write_text("".join(f"{label}\n" for label in _LABELS), encoding="utf-8")
    manifest = Manifest(
        architecture=ARCHITECTURE,
        input=row,
        outputs=[Output(labels=_LABELS_FILE)],
        weights=Weights(
            file=_WEIGHTS_FILE, sha256=weights.write(folder / _WEIGHTS_FILE, network.state_dict())
        ),
        serving=Serving(max_batch=64),
        provenance=provenance,
    )
    manifests.write(folder / manifests.FILE_NAME, manifest)
