"""Writes the images beside this file: the first four held-out digits of each class, chosen by nothing else.

Each is `<label>_<index in scikit-learn's data set>.png`, 8x8, 8-bit grayscale, and holds exactly the pixels
on which `digits_split` has the accuracy measured. From the root: `python -m tests.digits.make`.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from service.training.split import digits_split

PER_CLASS = 4


def make(folder: Path) -> None:
    """Write the 40 images into `folder`."""
    split = digits_split()
    for label in range(10):
        for row in (split.held_out_labels == label).nonzero().flatten()[:PER_CLASS].tolist():
            image = Image.fromarray(split.held_out_pixels[row, 0].numpy())
            image.save(folder / f"{label}_{split.held_out_indices[row]}.png", optimize=True)


if __name__ == "__main__":
    make(Path(__file__).parent)
