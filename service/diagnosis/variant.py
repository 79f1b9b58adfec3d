"""The variant: one way in which images may become network inputs, beside the way that is configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.store.manifest import Input

Fault = Literal["channel order", "division by 255", "mean and std", "inversion", "resize", "interpolation"]

CONFIGURED = "as configured"
OWN = "the images' own mean and std"
_KEYS = ("colour", "resize", "interpolation", "mean", "std")


@dataclass(frozen=True)
class Variant:
    """A preprocessing that the network may have been trained with."""

    name: str
    """What is different, in a few words."""
    fault: Fault | None
    """What is wrong with the manifest where this one is right; None for the one that is configured."""
    meaning: str
    """A sentence for whoever wrote the manifest."""
    spec: Input
    """The manifest's input as it would have to be."""

    def fix(self, configured: Input) -> tuple[str, ...]:
        """The lines of the table `[input]` in `model.toml` that have to change, and to what."""
        return tuple(
            _line(key, getattr(self.spec, key))
            for key in _KEYS
            if getattr(self.spec, key) != getattr(configured, key)
        )


def _line(key: str, value: Any) -> str:
    if value is None:
        return f"# no {key}: take the line out"
    if isinstance(value, str):
        return f'{key} = "{value}"'
    return f"{key} = {_numbers(value) if isinstance(value, list) else value}"


def _numbers(values: Sequence[float]) -> str:
    # A TOML float has a point or an exponent.
    return f"[{', '.join(repr(float(f'{value:.6g}')) for value in values)}]"
