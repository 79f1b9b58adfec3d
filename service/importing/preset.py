"""Presets: what torchvision and timm say about the images and the labels of their own networks.

Only the installed library is asked; nothing is fetched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from service.importing.checkpoint import Checkpoint

_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_USUAL_CROP = 0.875
_TRANSFORMING = {"googlenet", "inception_v3"}
_INTERPOLATIONS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic"}


@dataclass(frozen=True)
class Preset:
    """How images become rows of a network, as its library says, and the labels of its weights."""

    origin: str
    """Who says it, for the user."""
    input: dict[str, Any]
    """Keys of the manifest's input; what nobody says is not there."""
    crop: float | None = _USUAL_CROP
    """The side of the crop over the shorter side of the resized image; None where an image is squeezed."""
    labels: tuple[str, ...] | None = None
    """One for each logit of the library's own weights."""
    remarks: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments with which the library builds the network for its own weights, where these are them."""


def of(architecture: str, network: nn.Module, checkpoint: Checkpoint) -> Preset:
    """The preset of an architecture of the catalog."""
    library, colon, name = architecture.partition(":")
    return _LIBRARIES[library](name, network, checkpoint) if colon else _of_built_in(architecture)


def resized(crop: float | None, height: int, width: int) -> int | None:
    """To how many pixels the shorter side is resized, for so large a crop."""
    return None if crop is None else math.floor(max(height, width) / crop)


def _of_built_in(architecture: str) -> Preset:
    if architecture == "digits":
        return Preset("nobody", {"shape": [1, 8, 8], "colour": "grayscale"}, crop=None)
    table: dict[str, Any] = {"shape": [3, 224, 224], "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD}
    table |= {"interpolation": "bilinear", "resize": resized(_USUAL_CROP, 224, 224)}
    return Preset("what is usual for ImageNet", table)


# --- torchvision


def _of_torchvision(name: str, _: nn.Module, checkpoint: Checkpoint) -> Preset:
    chosen, is_own = _published(name, checkpoint)
    transforms: Any = None if chosen is None else chosen.transforms()
    if type(transforms).__name__ != "ImageClassification":  # detection, segmentation, video; or nothing
        return _of_built_in(name)
    side, resize = _only(transforms.crop_size), _only(transforms.resize_size)
    table = {
        "shape": [3, side, side],
        "resize": resize,
        "interpolation": transforms.interpolation.value,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
    }
    which = "which the checkpoint is" if is_own else "its default; the checkpoint is none of its own"
    options, remarks = _transforming(is_own) if name in _TRANSFORMING else ({}, ())
    return Preset(
        f"torchvision's {type(chosen).__name__}.{chosen.name}, {which}",
        table,
        crop=side / resize,
        labels=tuple(chosen.meta["categories"]) if "categories" in chosen.meta else None,
        remarks=remarks,
        options=options,
    )


def _published(name: str, checkpoint: Checkpoint) -> tuple[Any, bool]:
    """Torchvision's weights that the checkpoint is, or its default ones, and whether it is them."""
    models = import_module("torchvision.models")
    # The name of each file that torchvision publishes ends with the first digits of its sha256.
    for weights in models.get_model_weights(name):
        if _digits(weights.url) == checkpoint.sha256[:8]:
            return weights, True
    return getattr(models.get_model_weights(name), "DEFAULT", None), False


def _transforming(is_own: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """These networks normalise their input once more where torchvision loads its own weights into them."""
    if is_own:
        return {"transform_input": True}, (
            "transform_input is on, as torchvision has it for its own weights.",
        )
    return {}, ("If it was fine-tuned from torchvision's own weights, say --options transform_input=true.",)


def _digits(url: str) -> str:
    return url.rpartition("-")[2].partition(".")[0]


def _only(sizes: list[int]) -> int:
    return int(sizes[0])


# --- timm


def _of_timm(name: str, network: nn.Module, _: Checkpoint) -> Preset:
    timm = import_module("timm.data")
    settings = timm.resolve_data_config(model=network)
    tag = getattr(network, "pretrained_cfg", {}).get("tag") or ""
    shape = list(settings["input_size"])
    crop, remarks = _timm_crop(settings)
    table: dict[str, Any] = {"shape": shape, "mean": list(settings["mean"]), "std": list(settings["std"])}
    interpolation = _INTERPOLATIONS.get(settings["interpolation"])
    if interpolation:
        table["interpolation"] = interpolation
    else:
        remarks.append(f"The interpolation {settings['interpolation']!r} is not there; bilinear is taken.")
    return Preset(
        f"timm's configuration of {name if '.' in name or not tag else f'{name}.{tag}'}",
        {**table, "resize": resized(crop, *shape[1:])},
        crop=crop,
        labels=_timm_labels(timm, network),
        remarks=tuple(remarks),
    )


def _timm_crop(settings: dict[str, Any]) -> tuple[float | None, list[str]]:
    fraction, mode = settings["crop_pct"], settings["crop_mode"]
    if mode == "center" and fraction <= 1:
        return fraction, []
    if mode == "squash" and fraction == 1:
        return None, []
    said = f"timm crops with {mode!r} and {fraction:g}"
    return None, [f"{said}, which cannot be said here: images are squeezed to the input instead."]


def _timm_labels(timm: Any, network: nn.Module) -> tuple[str, ...] | None:
    """Those of the ImageNet that the configuration is of, where the network has as many classes."""
    configured = getattr(network, "pretrained_cfg", {})
    if configured.get("num_classes") != getattr(network, "num_classes", None):
        return None
    named = configured.get("label_names")
    if named:
        return tuple(named)
    subset = timm.infer_imagenet_subset(configured)
    return None if subset is None else tuple(timm.ImageNetInfo(subset).label_descriptions())


_LIBRARIES: dict[str, Callable[[str, Any, Any], Preset]] = {
    "torchvision": _of_torchvision,
    "timm": _of_timm,
}
