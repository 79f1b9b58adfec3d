"""Reference answers: the probe and what the unfolded network answers to it in float64, beside its weights.

They are only ever a shortcut: a file that is not exactly of these weights and this architecture is not
used, and the probe is made and answered anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.store import answers as files
from service.store.answers import NotUsable

if TYPE_CHECKING:
    from pathlib import Path

    from service.store.model_store import StoredModel

__all__ = ["FILE_NAME", "NotUsable", "read", "write"]

FILE_NAME = "reference.safetensors"

_FORMAT = "2"
_ROWS, _ANSWERS = "rows", "answers"


def read(stored: StoredModel) -> tuple[np.ndarray, np.ndarray]:
    """The stored probe, float32 `[N, C, H, W]`, and the answers to it, float64 `[N, ...]`, all finite.

    Raises `NotUsable` where there is no file, or one that is damaged or of something else. Whether the
    answers are right is not looked at.
    """
    arrays = files.read(stored.folder / FILE_NAME, _key(stored))
    rows, answers = (arrays.get(name, np.empty(())) for name in (_ROWS, _ANSWERS))
    if rows.dtype != np.float32 or rows.shape[1:] != tuple(stored.manifest.input.shape) or len(rows) < 2:
        raise NotUsable(f"{FILE_NAME} does not hold two float32 rows or more of the network's inputs")
    if answers.dtype != np.float64 or answers.shape[:1] != rows.shape[:1]:
        raise NotUsable(f"{FILE_NAME} does not hold one float64 answer for each row of the probe")
    if not (np.isfinite(rows).all() and np.isfinite(answers).all()):
        raise NotUsable(f"{FILE_NAME} holds numbers that are not finite")
    return rows, answers


def write(stored: StoredModel, rows: np.ndarray, answers: np.ndarray) -> Path:
    """Store the float32 probe and the float64 `answers`, both `[N, ...]`, in one step, and say where.

    Whoever may read the weights may read it. Raises `StoreError` where the folder cannot be written to.
    """
    arrays: dict[str, np.ndarray] = {_ROWS: rows.astype(np.float32), _ANSWERS: answers.astype(np.float64)}
    return files.write(stored, FILE_NAME, arrays, _key(stored))


def _key(stored: StoredModel) -> dict[str, str]:
    """What the answers are answers of: any other value, and they are not used."""
    return {"format": _FORMAT, **files.network_key(stored)}
