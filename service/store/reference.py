"""Reference answers: what the unfolded network answers to the probe in float64, kept beside its weights.

They are only ever a shortcut: a file that is not exactly of these weights, this architecture and this
probe is not used, and the answers are computed. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from service.errors import StoreError

if TYPE_CHECKING:
    from service.store.model_store import StoredModel

FILE_NAME = "reference.safetensors"

_FORMAT = "1"
_TENSOR = "answers"
_LARGEST_BYTES = 1 << 28
_LARGEST_HEADER = 1 << 16


class NotUsable(Exception):
    """Why there are no stored answers to use, in words for the log."""


def read(stored: StoredModel, rows: np.ndarray) -> np.ndarray:
    """The stored answers to the probe `rows` (float32 `[N, ...]`): float64 `[N, ...]`, all of them finite.

    Raises `NotUsable` where there is no file, or one that is damaged or of something else. Whether the
    answers are right is not looked at.
    """
    content = _content(stored.folder / FILE_NAME)
    try:
        tensors = load(content)  # it has checked the header when it is done
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise NotUsable(f"{FILE_NAME} is not a safetensors file ({error})") from error
    differing = [name for name, value in _key(stored, rows).items() if _metadata(content).get(name) != value]
    if differing:
        raise NotUsable(f"{FILE_NAME} is of another {', another '.join(differing)}")
    answers = tensors.get(_TENSOR)
    if answers is None or answers.dtype != np.float64 or answers.shape[:1] != rows.shape[:1]:
        raise NotUsable(f"{FILE_NAME} does not hold one float64 answer for each row of the probe")
    if not np.isfinite(answers).all():
        raise NotUsable(f"{FILE_NAME} holds answers that are not finite numbers")
    return answers


def write(stored: StoredModel, rows: np.ndarray, answers: np.ndarray) -> Path:
    """Store the float64 `answers` to the probe `rows`, both `[N, ...]`, in one step; the answer is the file.

    Whoever may read the weights may read it. Raises `StoreError` where the folder cannot be written to.
    """
    target = stored.folder / FILE_NAME
    content = save({_TENSOR: np.ascontiguousarray(answers, np.float64)}, metadata=_key(stored, rows))
    try:
        mode = stat.S_IMODE(stored.weights_path.stat().st_mode)
        with tempfile.TemporaryDirectory(dir=stored.folder, prefix=".writing-") as scratch:
            fresh = Path(scratch) / FILE_NAME
            fresh.write_bytes(content)
            fresh.chmod(mode)
            fresh.replace(target)
    except OSError as error:
        raise StoreError(f"{stored}: {FILE_NAME} cannot be written: {error.strerror}") from error
    return target


def _content(path: Path) -> bytes:
    """The bytes of a regular file whose size and header are within reason."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_BYTES:
            raise NotUsable(f"{path.name} is no regular file of a reasonable size")
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotUsable(f"there is no {path.name}") from None
    except OSError as error:
        raise NotUsable(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) < 8 or struct.unpack_from("<Q", content)[0] > _LARGEST_HEADER:
        raise NotUsable(f"{path.name} has a header of an unreasonable size")
    return content


def _metadata(content: bytes) -> dict[str, str]:
    """What the header of a blob, which safetensors has accepted, says of it."""
    (length,) = struct.unpack_from("<Q", content)
    said: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return said


def _key(stored: StoredModel, rows: np.ndarray) -> dict[str, str]:
    """What the answers are answers of: any other value, and they are not used."""
    manifest = stored.manifest
    probe = hashlib.sha256(f"{rows.dtype.str} {rows.shape}".encode() + np.ascontiguousarray(rows).tobytes())
    return {
        "format": _FORMAT,
        "weights": manifest.network.sha256,
        "architecture": manifest.architecture or "",
        "options": json.dumps(manifest.options, sort_keys=True),
        "probe": probe.hexdigest(),
    }
