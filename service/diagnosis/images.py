"""Images as the rows that each variant makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.diagnosis.variants import changed, variants
from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.diagnosis.variant import Variant
    from service.store.manifest import Input


def variant_rows(
    spec: Input, contents: Sequence[bytes], max_pixels: int
) -> Iterator[tuple[Variant, np.ndarray]]:
    """The variants that make something else of these JPEGs and PNGs, each with its rows; as configured first.

    The rows are network inputs, float32 `[N, C, H, W]`; only one variant's are made at a time. Raises what
    `decode_image` raises.
    """
    images = _Images(contents, max_pixels)
    configured = images.pixels(spec)
    have_the_size = images.have_the_size_of(spec)
    for variant in variants(spec, configured):
        pixels = images.pixels(variant.spec)
        if variant.fault in ("resize", "interpolation"):
            # What comes in the network's own size looks as in training if it is left alone.
            makes_sense = variant.spec.resize is None or not have_the_size
            if not makes_sense or np.array_equal(pixels, configured):
                continue
        yield variant, normalised(pixels, variant.spec)


def normalised(pixels: np.ndarray, spec: Input) -> np.ndarray:
    """uint8 `[N, C, H, W]` as float32 network inputs, computed in float64 as serving does it."""
    mean, std = (np.array(values, np.float64).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    rows: np.ndarray = (pixels * (1 / (255 * std)) - mean / std).astype(np.float32)
    return rows


class _Images:
    """Encoded images, decoded once in each size."""

    def __init__(self, contents: Sequence[bytes], max_pixels: int) -> None:
        self._contents = contents
        self._max_pixels = max_pixels
        # The mutable state: what was decoded, by what decides its pixels.
        self._decoded: dict[tuple[object, ...], np.ndarray] = {}

    def pixels(self, spec: Input) -> np.ndarray:
        """uint8 `[N, C, H, W]`."""
        key = spec.colour, spec.resize, spec.interpolation
        if key not in self._decoded:
            pixels = np.empty((len(self._contents), *spec.shape), np.uint8)
            for content, row in zip(self._contents, pixels, strict=True):
                decode_image(content, spec, self._max_pixels, row)
            self._decoded[key] = pixels
        return self._decoded[key]

    def have_the_size_of(self, spec: Input) -> bool:
        """Whether all have the network's height and width: then it does not matter how they are resized."""
        nearest, bicubic = (
            self.pixels(changed(spec, resize=None, interpolation=how)) for how in ("nearest", "bicubic")
        )
        return np.array_equal(nearest, bicubic)
