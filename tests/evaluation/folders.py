"""Folders of images, one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from service.training.split import digits_split

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]


def png(path: Path, pixels: np.ndarray | None = None) -> Path:
    """An 8x8 image of so many gray levels `[8, 8]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8) if pixels is None else pixels).save(path, "PNG")
    return path


def held_out_digits(folder: Path, rows: Iterable[int]) -> Path:
    """These of scikit-learn's digits that the shipped model was not trained on, `<label>/<row>.png`."""
    split = digits_split()
    for row in rows:
        label, pixels = int(split.held_out_labels[row]), split.held_out_pixels[row, 0]
        png(folder / str(label) / f"{row:03d}.png", pixels.numpy())
    return folder
