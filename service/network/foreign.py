"""Architectures of torchvision and timm, by name, always without their weights.

The libraries are imported when one of their names is asked for. Nothing is downloaded: a name must be
one that the library itself defines, and every argument that could fetch or read weights is fixed.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from service.errors import InvalidManifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import nn

    Constructor = Callable[..., nn.Module]


def constructor(library: str, name: str) -> Constructor:
    """What builds the architecture `name` of `library`, with initial weights.

    Raises `InvalidManifest` for another library than torchvision and timm, one that cannot be
    imported, or a name that it does not define.
    """
    find = _LIBRARIES.get(library)
    if find is None:
        raise InvalidManifest(
            f"there are no architectures of {library!r}, only of {' and '.join(_LIBRARIES)}"
        )
    found = find(name)
    if found is None:
        raise InvalidManifest(f"{library} has no architecture {name!r}")
    return found


def _torchvision(name: str) -> Constructor | None:
    models = _imported("torchvision", "torchvision.models")
    if name not in models.list_models():
        return None
    builder: Constructor = models.get_model_builder(name)
    # Detection and segmentation networks fetch a backbone's weights unless told not to.
    accepted = {"weights", "weights_backbone"} & signature(builder).parameters.keys()
    return _with_fixed(builder, dict.fromkeys(accepted))


def _timm(name: str) -> Constructor | None:
    timm = _imported("timm", "timm")
    if not timm.is_model(name):  # among others a name on a hub, whose configuration would be fetched
        return None
    return _with_fixed(timm.create_model, {"model_name": name, "pretrained": False, "checkpoint_path": None})


def _with_fixed(builder: Constructor, fixed: dict[str, Any]) -> Constructor:
    def build(**options: Any) -> nn.Module:
        return builder(**fixed, **options)  # a fixed argument among the options is a TypeError

    return build


def _imported(library: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # the latter two: built for another torch
        raise InvalidManifest(
            f"architectures of {library} need {library}, which cannot be imported ({error}): "
            f"pip install 'foldserve[{library}]' --constraint constraints.txt, which keeps torch as it is"
        ) from error


_LIBRARIES: dict[str, Callable[[str], Constructor | None]] = {"torchvision": _torchvision, "timm": _timm}
