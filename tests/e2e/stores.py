"""Model stores made for a test, from the shipped one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import tomli_w
from safetensors.torch import load_file

from service.store import weights
from service.store.model_store import ModelStore

from .server import STORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


def copied(folder: Path, name: str = "digits", version: int = 1) -> Path:
    """The folder of a copy of the shipped model, in the store `folder`."""
    target = folder / name / str(version)
    shutil.copytree(STORE / "digits" / "1", target)
    return target


def with_manifest(version: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the manifest of a version says."""
    store = ModelStore(version.parents[1])
    document = store.open(version.parent.name, int(version.name)).manifest.model_dump(exclude_none=True)
    change(document)
    (version / "model.toml").write_text(tomli_w.dumps(document), encoding="utf-8")


def with_tensors(version: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights of a version, the digest in its manifest with them."""
    file = version / "weights.safetensors"
    tensors = load_file(file)
    change(tensors)
    digest = weights.write(file, tensors)
    with_manifest(version, lambda document: document["weights"].update(sha256=digest))
