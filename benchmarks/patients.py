"""Patients of `doctor.py`: networks with the input that they were trained with, and held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import subjects
import torch
from scenes import augmented, jpeg, png, scenes, trained
from textures import textures

from service.diagnosis.images import Images, normalised
from service.diagnosis.variants import changed
from service.store.manifest import Input

if TYPE_CHECKING:
    from collections.abc import Callable

    from subjects import Subject

    Task = Callable[[np.random.Generator, int], tuple[list[np.ndarray], np.ndarray]]

MOST = 10**8
"""Pixels of an image."""
_ROWS = 2400
_HELD_OUT = 600
_EPOCHS = 8


@dataclass(frozen=True)
class Patient:
    """A network, the input that it was trained with, and held-out images."""

    subject: Subject
    spec: Input
    contents: list[bytes]
    labels: np.ndarray


def of_digits(name: str, seed: int) -> Patient:
    """A network for digits, `[N, 1, 8, 8]`."""
    subject = subjects.SUBJECTS[name](seed)
    mean, std = ([float(value) for value in values] for values in subject.normalisation)
    spec = Input(shape=[1, 8, 8], colour="grayscale", mean=mean, std=std)
    return Patient(subject, spec, [png(row[0]) for row in subject.pixels], subject.labels)


def of_photographs(task: Task, seed: int, resize: int = 73, *, crops: bool = False) -> Patient:
    """A network for photographs, `[N, 3, 64, 64]`, trained on their centres, or on random crops."""
    random = np.random.default_rng(seed)
    images, labels = task(random, _ROWS)
    shown, held_out = task(random, _HELD_OUT)
    spec = Input(shape=[3, 64, 64], resize=resize, mean=[0.0] * 3, std=[1.0] * 3)
    x = Images([jpeg(image) for image in images], MOST).pixels(spec)
    mean, std = ((x / 255).mean((0, 2, 3)), (x / 255).std((0, 2, 3)))
    spec = changed(spec, mean=mean.round(4).tolist(), std=std.round(4).tolist())
    epochs = [augmented(random, images, 64) if crops else x for _ in range(_EPOCHS)]
    network = trained(epochs, labels, lambda rows: torch.from_numpy(normalised(rows, spec)), seed)
    contents = [jpeg(image) for image in shown]
    pixels = Images(contents, MOST).pixels(spec)
    subject = subjects.Subject("photographs", network, spec.mean, spec.std, (pixels, held_out), x[:1])
    return Patient(subject, spec, contents, held_out)


PATIENTS: dict[str, Callable[[int], Patient]] = {
    "shipped": partial(of_digits, "shipped"),  # the digits model of the store
    "plain": partial(of_digits, "plain"),  # the same, trained on digits as they are
    "scenes": partial(of_photographs, scenes),
    "augmented": partial(of_photographs, scenes, crops=True),
    "textures": partial(of_photographs, textures),
    "textures-whole": partial(of_photographs, textures, resize=64),  # the crop leaves the shorter side
    "textures-augmented": partial(of_photographs, textures, crops=True),
}
