"""The variants: what usually goes wrong between training and a manifest, as inputs that would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.diagnosis.variant import CONFIGURED, OWN, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.diagnosis.variant import Fault
    from service.store.manifest import Input

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROPPED = (1.0, 0.875)
"""Parts of the resized image's shorter side that a crop leaves."""
_NEARLY = 0.02
"""Numbers that differ by less, in units of the std, are one variant."""


def variants(spec: Input, pixels: np.ndarray) -> list[Variant]:
    """The configured input first, then all others that differ from it.

    `pixels`: uint8 `[N, C, H, W]`, the images as `spec` decodes them; their own mean and std are one of the
    variants.
    """
    found = [Variant(CONFIGURED, None, "The preprocessing in model.toml.", spec)]
    for one in _others(spec, pixels):
        if not any(_is_same(one.spec, other.spec) for other in found):
            found.append(one)
    return found


def _others(spec: Input, pixels: np.ndarray) -> Iterator[Variant]:
    yield from _orders(spec)
    yield from _divisions(spec)
    yield from _normalisations(spec)
    yield from _negative(spec)
    yield from _own(spec, pixels)
    yield from _sizes(spec)
    yield from _interpolations(spec)


def _orders(spec: Input) -> Iterator[Variant]:
    if spec.colour == "grayscale":
        return
    other, words = ("bgr", "blue, green, red") if spec.colour == "rgb" else ("rgb", "red, green, blue")
    meaning = f"The network was trained on {words}, in this order, and gets the reverse."
    yield Variant(other, "channel order", meaning, changed(spec, colour=other))
    reversed_too = changed(spec, colour=other, mean=spec.mean[::-1], std=spec.std[::-1])
    yield Variant(f"{other}, mean and std too", "channel order", meaning, reversed_too)


def _divisions(spec: Input) -> Iterator[Variant]:
    channels, mean, std = len(spec.mean), np.array(spec.mean), np.array(spec.std)
    yield _normalised(
        spec,
        "not divided by 255 again",
        "division by 255",
        "Pixels are divided by 255 once too often: mean and std are meant for pixels from 0 to 255.",
        *_as_lists(mean / 255, std / 255),
    )
    yield _normalised(
        spec,
        "divided by 255",
        "division by 255",
        "Pixels are not divided by 255: mean and std are divided by it already.",
        *_as_lists(mean * 255, std * 255),
    )
    yield _normalised(
        spec,
        "pixels from 0 to 255",
        "division by 255",
        "The network was trained on pixels from 0 to 255 as they are.",
        [0.0] * channels,
        [1 / 255] * channels,
    )


def _normalisations(spec: Input) -> Iterator[Variant]:
    channels, mean, std = len(spec.mean), np.array(spec.mean), np.array(spec.std)
    yield _normalised(
        spec,
        "pixels from 0 to 1",
        "mean and std",
        "The network takes no mean and std, or has them in itself, so that they are applied twice.",
        [0.0] * channels,
        [1.0] * channels,
    )
    if (std > 0).all():
        yield _normalised(
            spec,
            "normalised once",
            "mean and std",
            "The mean and std in model.toml are those of normalising twice.",
            *_as_lists(mean / (1 + np.sqrt(std)), np.sqrt(std)),
        )
    yield _normalised(
        spec,
        "pixels from -1 to 1",
        "mean and std",
        "The network was trained on pixels from -1 to 1.",
        [0.5] * channels,
        [0.5] * channels,
    )
    if channels == 3:
        order = 1 if spec.colour == "rgb" else -1
        yield _normalised(
            spec,
            "ImageNet's mean and std",
            "mean and std",
            "The network was trained with the mean and std of ImageNet.",
            _IMAGENET[0][::order],
            _IMAGENET[1][::order],
        )


def _negative(spec: Input) -> Iterator[Variant]:
    if len(spec.mean) == 1:
        yield _normalised(
            spec,
            "inverted",
            "inversion",
            "The network was trained on the negative of these images: light on dark for dark on light.",
            *_as_lists(1 - np.array(spec.mean), -np.array(spec.std)),
        )


def _normalised(
    spec: Input, name: str, fault: Fault, meaning: str, mean: Sequence[float], std: Sequence[float]
) -> Variant:
    return Variant(name, fault, meaning, changed(spec, mean=list(mean), std=list(std)))


def _own(spec: Input, pixels: np.ndarray) -> Iterator[Variant]:
    """The mean and std of these images: most networks are trained on inputs of mean 0 and std 1."""
    scaled = pixels.astype(np.float64) / 255
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))
    if (std > 0).all():
        yield Variant(
            OWN,
            "mean and std",
            "The network was trained on inputs with a mean of 0 and a standard deviation of 1.",
            changed(spec, mean=mean.round(4).tolist(), std=std.round(4).tolist()),
        )


def _sizes(spec: Input) -> Iterator[Variant]:
    crop = max(spec.shape[1:])
    if spec.resize is not None:
        meaning = "The network was trained on whole images, squeezed to its height and width."
        yield Variant("squeezed", "resize", meaning, changed(spec, resize=None))
    for part in _CROPPED:
        resize = round(crop / part)
        meaning = f"The network was trained on images resized to {resize} pixels and cropped."
        yield Variant(f"resized to {resize}", "resize", meaning, changed(spec, resize=resize))


def _interpolations(spec: Input) -> Iterator[Variant]:
    for other in ("nearest", "bilinear", "bicubic"):
        meaning = f"The network was trained on images resized with {other} interpolation."
        yield Variant(other, "interpolation", meaning, changed(spec, interpolation=other))


def changed(spec: Input, **changes: object) -> Input:
    """The same input but for these keys; raises `ValidationError` for what no manifest may say."""
    return type(spec).model_validate({**spec.model_dump(), **changes})


def _as_lists(mean: np.ndarray, std: np.ndarray) -> tuple[list[float], list[float]]:
    return mean.tolist(), std.tolist()


def _is_same(one: Input, other: Input) -> bool:
    if (one.colour, one.resize, one.interpolation) != (other.colour, other.resize, other.interpolation):
        return False
    scale = np.minimum(np.abs(one.std), np.abs(other.std))
    apart = np.abs(np.subtract([one.mean, one.std], [other.mean, other.std])) / scale
    return bool((apart < _NEARLY).all())
