"""The catalog: architectures by name.

A name is built in (`resnet50`), or torchvision's or timm's (`torchvision:regnet_y_400mf`,
`timm:convmixer_768_32`), which need the extra of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import InvalidManifest
from service.network import densenet, efficientnet, foreign, mobilenet, resnet, vgg
from service.network.adopt import adopt
from service.network.digits import Digits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "digits": Digits,
    **densenet.ARCHITECTURES,
    **efficientnet.ARCHITECTURES,
    **mobilenet.ARCHITECTURES,
    **resnet.ARCHITECTURES,
    **vgg.ARCHITECTURES,
}


def names() -> list[str]:
    """Every architecture that is built in."""
    return sorted(_ARCHITECTURES)


def build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """The architecture with its initial weights, its norms ours, in evaluation mode.

    Nothing is downloaded.

    Raises `InvalidManifest` for a name that is not in the catalog, a library that is not installed,
    or options that the architecture does not take.
    """
    constructor = _constructor(architecture)
    try:
        network = constructor(**options)
    except Exception as error:  # constructors raise anything at options they do not take
        raise InvalidManifest(f"architecture {architecture!r}: {error}") from error
    return adopt(network).eval()


def _constructor(architecture: str) -> Callable[..., nn.Module]:
    library, colon, name = architecture.partition(":")
    if colon:
        return foreign.constructor(library, name)
    built_in = _ARCHITECTURES.get(architecture)
    if built_in is None:
        raise InvalidManifest(
            f"architecture {architecture!r} is unknown; there are: {', '.join(names())}, "
            "torchvision:NAME, timm:NAME"
        )
    return built_in


def input_shape(network: nn.Module) -> list[int]:
    """The row `[C, H, W]` that a network was made for, where it says so, else that of ImageNet."""
    if isinstance(network, Digits):
        return [1, 8, 8]
    configuration = getattr(network, "pretrained_cfg", None) or {}
    return list(configuration.get("input_size", (3, 224, 224)))
