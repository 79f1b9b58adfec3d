"""What the engine tells the client about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelLoaded:
    """A version is folded, proven and warm."""

    card: int
    """The descriptor of its model card; the hearer owns it."""


@dataclass(frozen=True)
class Ready:
    """Every model is loaded; jobs are being run."""


@dataclass(frozen=True)
class Stopped:
    """The engine runs no more jobs: it drained, or it failed for the reason given."""

    failure: Exception | None = None


Message = ModelLoaded | Ready | Stopped
