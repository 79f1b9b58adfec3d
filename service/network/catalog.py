"""The catalog: architectures by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import InvalidManifest
from service.network.adopt import adopt
from service.network.digits import Digits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "digits": Digits,
}


def names() -> list[str]:
    """Every architecture that is built in."""
    return sorted(_ARCHITECTURES)


def build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """The architecture with its initial weights, its norms ours, in evaluation mode.

    Raises `InvalidManifest` for a name that is not in the catalog or options that it does not take.
    """
    factory = _ARCHITECTURES.get(architecture)
    if factory is None:
        raise InvalidManifest(f"architecture {architecture!r} is unknown; there are: {', '.join(names())}")
    try:
        return adopt(factory(**options)).eval()
    except TypeError as error:
        raise InvalidManifest(f"architecture {architecture!r}: {error}") from error
