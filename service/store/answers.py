"""Answers files: arrays that say of which network they are answers, kept beside its weights.

A file is safetensors. Its metadata is a key and the digest of the arrays: a file of anything else, or one
that was damaged, is never taken for what was written. Nothing is unpickled.
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
    from collections.abc import Mapping

    from service.store.model_store import StoredModel

_CONTENT = "content"
_LARGEST_BYTES = 1 << 28
_LARGEST_HEADER = 1 << 16


class NotUsable(Exception):
    """Why a file's arrays cannot be used, in words for the log."""


class Missing(NotUsable):
    """There is no file."""


def network_key(stored: StoredModel) -> dict[str, str]:
    """What tells the network of a version from any other."""
    manifest = stored.manifest
    return {
        "weights": manifest.network.sha256,
        "architecture": manifest.architecture or "",
        "options": json.dumps(manifest.options, sort_keys=True),
    }


def read(path: Path, key: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays of the file at `path`; raises `NotUsable` where they are not as written under `key`."""
    content = _content(path)
    try:
        arrays = load(content)  # it has checked the header when it is done
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise NotUsable(f"{path.name} is not a safetensors file ({error})") from error
    said = _metadata(content)
    differing = [name for name, value in key.items() if said.get(name) != value]
    if differing:
        raise NotUsable(f"{path.name} is of another {', another '.join(differing)}")
    if said.get(_CONTENT) != _digest(arrays):
        raise NotUsable(f"{path.name} is damaged: it does not hold what was written")
    return arrays


def write(
    stored: StoredModel, file_name: str, arrays: Mapping[str, np.ndarray], key: Mapping[str, str]
) -> Path:
    """Store `arrays` under `key` beside the weights of a version, in one step; the answer is the file.

    Whoever may read the weights may read it. Raises `StoreError` where the folder cannot be written to.
    """
    return write_into(stored.folder, stored, file_name, arrays, key)


def write_into(
    folder: Path,
    stored: StoredModel,
    file_name: str,
    arrays: Mapping[str, np.ndarray],
    key: Mapping[str, str],
) -> Path:
    """The same in any folder."""
    target = folder / file_name
    try:
        mode = stat.S_IMODE(stored.weights_path.stat().st_mode)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            fresh = Path(scratch) / file_name
            fresh.write_bytes(encoded(arrays, key))
            fresh.chmod(mode)
            fresh.replace(target)
    except OSError as error:
        raise StoreError(f"{stored}: {file_name} cannot be written: {error.strerror}") from error
    return target


def encoded(arrays: Mapping[str, np.ndarray], key: Mapping[str, str]) -> bytes:
    """The content of the file."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(plain, metadata={**key, _CONTENT: _digest(plain)})


def _content(path: Path) -> bytes:
    """The bytes of a regular file whose size and header are within reason."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_BYTES:
            raise NotUsable(f"{path.name} is no regular file of a reasonable size")
        content = path.read_bytes()
    except FileNotFoundError:
        raise Missing(f"there is no {path.name}") from None
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


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
