"""Reference answers: what the unfolded network answers to the probe in float64, kept beside its weights.

They are only ever a shortcut: a file that is not exactly of these weights, this architecture and this
probe is not used, and the answers are computed.
"""

from __future__ import annotations

import hashlib
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
_TENSOR = "answers"


def read(stored: StoredModel, rows: np.ndarray) -> np.ndarray:
    """The stored answers to the probe `rows` (float32 `[N, ...]`): float64 `[N, ...]`, all of them finite.

    Raises `NotUsable` where there is no file, or one that is damaged or of something else. Whether the
    answers are right is not looked at.
    """
    answers = files.read(stored.folder / FILE_NAME, _key(stored, rows)).get(_TENSOR)
    if answers is None or answers.dtype != np.float64 or answers.shape[:1] != rows.shape[:1]:
        raise NotUsable(f"{FILE_NAME} does not hold one float64 answer for each row of the probe")
    if not np.isfinite(answers).all():
        raise NotUsable(f"{FILE_NAME} holds answers that are not finite numbers")
    return answers


def write(stored: StoredModel, rows: np.ndarray, answers: np.ndarray) -> Path:
    """Store the float64 `answers` to the probe `rows`, both `[N, ...]`, in one step; the answer is the file.

    Whoever may read the weights may read it. Raises `StoreError` where the folder cannot be written to.
    """
    return files.write(stored, FILE_NAME, {_TENSOR: answers.astype(np.float64)}, _key(stored, rows))


def _key(stored: StoredModel, rows: np.ndarray) -> dict[str, str]:
    """What the answers are answers of: any other value, and they are not used."""
    probe = hashlib.sha256(f"{rows.dtype.str} {rows.shape}".encode() + np.ascontiguousarray(rows).tobytes())
    return {"format": _FORMAT, **files.network_key(stored), "probe": probe.hexdigest()}
