"""Images as the rows that each variant makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.diagnosis.variants import changed, variants
from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from service.diagnosis.variant import Variant
    from service.store.manifest import Input


def variant_rows(
    spec: Input, contents: Sequence[bytes], max_pixels: int, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[Variant, np.ndarray]]:
    """The variants that make something else of these JPEGs and PNGs, each with its rows; as configured first.

    The rows are network inputs, float32 `[N, C, H, W]`; only one variant's are made at a time. Raises what
    `decode_image` raises, and what `check` raises before each image.
    """
    images = Images(contents, max_pixels, check)
    for variant in images.variants(spec):
        yield variant, images.rows(variant.spec)


def normalised(pixels: np.ndarray, spec: Input) -> np.ndarray:
    """uint8 `[N, C, H, W]` as float32 network inputs, computed in float64 as serving does it."""
    mean, std = (np.array(values, np.float64).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    rows: np.ndarray = (pixels * (1 / (255 * std)) - mean / std).astype(np.float32)
    return rows


class Images:
    """Encoded images, decoded once in each size."""

    def __init__(
        self, contents: Sequence[bytes], max_pixels: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._contents = contents
        self._max_pixels = max_pixels
        self._check = check
        # The mutable state: what was decoded, by what decides its pixels.
        self._decoded: dict[tuple[object, ...], np.ndarray] = {}

    def variants(self, spec: Input) -> Iterator[Variant]:
        """Those that make something else of these images, the configured one first."""
        configured = self.pixels(spec)
        for variant in variants(spec, configured):
            if variant.fault not in ("resize", "interpolation") or self._matters(variant, configured):
                yield variant

    def part(self, chosen: np.ndarray) -> Images:
        """Some of them, by number, without decoding them anew."""
        few = Images([self._contents[number] for number in chosen], self._max_pixels, self._check)
        few._decoded = {key: pixels[chosen] for key, pixels in self._decoded.items()}
        return few

    def rows(self, spec: Input) -> np.ndarray:
        """float32 network inputs, `[N, C, H, W]`."""
        return normalised(self.pixels(spec), spec)

    def pixels(self, spec: Input) -> np.ndarray:
        """uint8 `[N, C, H, W]`."""
        key = spec.colour, spec.resize, spec.interpolation
        if key not in self._decoded:
            pixels = np.empty((len(self._contents), *spec.shape), np.uint8)
            for content, row in zip(self._contents, pixels, strict=True):
                self._check()
                decode_image(content, spec, self._max_pixels, row)
            self._decoded[key] = pixels
        return self._decoded[key]

    def _matters(self, variant: Variant, configured: np.ndarray) -> bool:
        if np.array_equal(self.pixels(variant.spec), configured):
            return False
        # What comes in the network's own size looks as in training if it is left alone.
        return variant.spec.resize is None or not self._have_the_size_of(variant.spec)

    def _have_the_size_of(self, spec: Input) -> bool:
        """Whether all have the network's height and width: then it does not matter how they are resized."""
        nearest, bicubic = (
            self.pixels(changed(spec, resize=None, interpolation=how)) for how in ("nearest", "bicubic")
        )
        return np.array_equal(nearest, bicubic)
