"""The split: scikit-learn's handwritten digits, in rows to train on and rows held out.

The data set is the test half of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998,
https://archive.ics.uci.edu/dataset/80): 1,797 images of 8x8 pixels by 13 writers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from torch import Tensor

SEED = 0  # not the training's: a row that is held out stays so for every model
_HELD_OUT_ROWS = 719


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
            range(len(labels)), test_size=_HELD_OUT_ROWS, stratify=labels, random_state=SEED
        )
    )
    pixels = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    return DigitsSplit(pixels[train], targets[train], pixels[held_out], targets[held_out], held_out)
