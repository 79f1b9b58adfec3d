"""Golden inputs: images of the user's own as pixels, with their float64 answers, kept beside the weights.

They are a proof that somebody asked for: a file that is there and cannot be used is an error, never skipped.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.errors import StoreError
from service.store import answers as files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from service.store.model_store import StoredModel

FILE_NAME = "golden.safetensors"
AT_MOST = 64

_LARGEST_BYTES = 1 << 27
_FORMAT = "1"
_PIXELS, _ANSWERS, _NAMES, _ERROR = "pixels", "answers", "names", "unfolded_error."


@dataclass(frozen=True)
class Golden:
    """What was asked and what the unfolded network answered."""

    names: tuple[str, ...]
    """Of the images, below the folder that they came from."""
    pixels: np.ndarray
    """uint8 `[N, C, H, W]`: what the preprocessing makes of the images, before mean and std."""
    answers: np.ndarray
    """float64 `[N, classes]`."""
    unfolded_errors: Mapping[str, float]
    """By dtype: the unfolded network's own relative error in it, which sets the tolerance."""


def at_most(row: Sequence[int]) -> int:
    """How many golden inputs of shape `[C, H, W]` a version has: 64, or what 128 MiB hold."""
    return max(1, min(AT_MOST, _LARGEST_BYTES // math.prod(row)))


def read(stored: StoredModel) -> Golden | None:
    """The golden inputs of a version; None where it has none.

    Raises `StoreError`, which says what to do, where the file is damaged or of another network.
    """
    try:
        return _golden(files.read(stored.folder / FILE_NAME, _key(stored)), stored.manifest.input.shape)
    except files.Missing:
        return None
    except files.NotUsable as why:
        raise StoreError(
            f"{stored}: {why}; foldserve evaluate {stored} --images DIR writes it anew, "
            "and without the file no golden input is checked"
        ) from None


def write(stored: StoredModel, golden: Golden) -> Path:
    """Store golden inputs in one step, in place of those before; the answer is the file.

    Whoever may read the weights may read it. Raises `StoreError` where the folder cannot be written to.
    """
    arrays = {
        _PIXELS: golden.pixels,
        _ANSWERS: golden.answers,
        _NAMES: np.frombuffer(json.dumps(golden.names).encode(), np.uint8),
        **{_ERROR + dtype: np.array(error) for dtype, error in golden.unfolded_errors.items()},
    }
    return files.write(stored, FILE_NAME, arrays, _key(stored))


def _golden(arrays: dict[str, np.ndarray], row: list[int]) -> Golden:
    try:
        golden = Golden(
            names=tuple(json.loads(arrays[_NAMES].tobytes())),
            pixels=arrays[_PIXELS],
            answers=arrays[_ANSWERS],
            unfolded_errors={
                name.removeprefix(_ERROR): float(array.item())
                for name, array in arrays.items()
                if name.startswith(_ERROR)
            },
        )
    except (KeyError, ValueError, TypeError) as error:
        raise files.NotUsable(f"{FILE_NAME} does not hold golden inputs ({error})") from error
    _check(golden, row)
    return golden


def _check(golden: Golden, row: list[int]) -> None:
    count = len(golden.names)
    is_whole = (
        0 < count <= AT_MOST
        and golden.pixels.dtype == np.uint8
        and golden.pixels.shape == (count, *row)
        and golden.answers.dtype == np.float64
        and golden.answers.shape[:1] == (count,)
        and np.isfinite(golden.answers).all()
    )
    if not is_whole:
        raise files.NotUsable(f"{FILE_NAME} does not hold 1 to {AT_MOST} rows of pixels with their answers")


def _key(stored: StoredModel) -> dict[str, str]:
    """What the answers are answers of; pixels become network inputs by mean and std."""
    given = stored.manifest.input
    preprocessing = json.dumps({"mean": given.mean, "std": given.std})
    return {"format": _FORMAT, **files.network_key(stored), "preprocessing": preprocessing}
