"""The source of an import: a network, and all that the store is to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from service.store.manifest import Input


@dataclass(frozen=True)
class Source:
    """What is to be imported; nothing of it is in the store yet."""

    network: nn.Module
    """In evaluation mode, on the CPU, its norms adopted; takes float32 `[N, C, H, W]`."""
    input: Input
    """What one row is, and how an image becomes one."""
    labels: tuple[str, ...] | None
    """One for each logit, in their order; None where nobody has said any."""
    table: dict[str, Any]
    """How the network is built, in the manifest's words: `{"architecture": ..., "options": ...}`, or `{}` for
    a program, which needs no more than its file."""
    write: Callable[[Path], dict[str, Any]]
    """Writes the weights or the program into the fresh folder of a version, and answers with the manifest's
    table of them: `{"weights": {"file": ..., "sha256": ...}}` or `{"program": {"file": ..., "sha256": ...}}`.
    The manifest is `{**table, **write(folder)}` with input, outputs and provenance."""
    remarks: tuple[str, ...] = ()
    """What the user is told, one sentence each: prefixes removed, what a library's configuration said."""
    provenance: dict[str, str] | None = None
    """Where it comes from, for the manifest: the file's name and its sha256, the library and its version."""
