"""Baseline files: what accepted rows looked like at a version's norms, beside its weights or apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import StoreError
from service.store import answers as files
from service.store.answers import Missing, NotUsable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from service.store.model_store import StoredModel

__all__ = ["FILE_NAME", "Missing", "NotUsable", "read", "write"]

FILE_NAME = "baseline.safetensors"

_FORMAT = "3"
_PREPROCESSING = {"shape", "colour", "resize", "interpolation", "mean", "std"}
"""What of a manifest's input decides how an image becomes a row."""


def read(stored: StoredModel, apart: Path | None) -> dict[str, np.ndarray]:
    """The arrays that were written for this version and these very weights; `apart` is as in `write`.

    Raises `NotUsable` where there is no file, or one that is damaged or of something else.
    """
    return files.read(_folder(stored, apart) / FILE_NAME, _key(stored))


def write(stored: StoredModel, apart: Path | None, arrays: Mapping[str, np.ndarray]) -> Path:
    """Store the arrays in one step: beside the weights, or in `<apart>/<model>/<version>/`; the file.

    Raises `StoreError` where the folder cannot be written to.
    """
    folder = _folder(stored, apart)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{stored}: {FILE_NAME} cannot be written: {error.strerror}") from error
    return files.write_into(folder, stored, FILE_NAME, arrays, _key(stored))


def _folder(stored: StoredModel, apart: Path | None) -> Path:
    return apart / stored.name / str(stored.version) if apart else stored.folder


def _key(stored: StoredModel) -> dict[str, str]:
    """What the statistics are of."""
    preprocessing = stored.manifest.input.model_dump_json(include=_PREPROCESSING)
    return {"format": _FORMAT, **files.network_key(stored), "preprocessing": preprocessing}
