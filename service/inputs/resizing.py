"""Sizes: an image to the height and width of the model, as torchvision's `Resize` and `CenterCrop` do it.

What the crop leaves out is not computed, as far as that changes nothing: Pillow makes the very same pixels of
a box as of the whole image if it need not round the ends of the box, and takes the axes in the same order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from service.store.manifest import Input

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resized_size(width: int, height: int, spec: Input) -> tuple[int, int]:
    """Width and height of the whole resized image, before its centre is cropped."""
    if spec.resize is None:
        return spec.shape[2], spec.shape[1]
    long = int(spec.resize * max(width, height) / min(width, height))
    return (spec.resize, long) if width <= height else (long, spec.resize)


def resized(image: Image.Image, spec: Input) -> Image.Image:
    """The image in the height and width of `spec.shape`; `image` itself where it has them already."""
    whole = resized_size(*image.size, spec)
    _, height, width = spec.shape
    left, top = round((whole[0] - width) / 2.0), round((whole[1] - height) / 2.0)
    if image.size != whole:
        x, y = Span.of(image.width, whole[0]), Span.of(image.height, whole[1])
        if spec.resize and spec.interpolation != "nearest" and _begins_across(image):
            x, y = x.around(left, width), y.around(top, height)
        image = _resized(image, x, y, _RESAMPLING[spec.interpolation])
        left, top = left - x.first, top - y.first
    kept = (left, top, left + width, top + height)
    return image if kept == (0, 0, *image.size) else image.crop(kept)


def _begins_across(image: Image.Image) -> bool:
    """Whether Pillow resizes the width before the height; 13.0 does the opposite where images are tall."""
    return image.height <= 2 * image.width


def _resized(image: Image.Image, x: Span, y: Span, how: Image.Resampling) -> Image.Image:
    if x.is_whole and y.is_whole:
        return image.resize((x.length, y.length), how)
    across = image.resize((x.length, image.height), how, (x.start, 0, x.stop, image.height))
    return across.resize((x.length, y.length), how, (0, y.start, x.length, y.stop))


class Span(NamedTuple):
    """A part of one axis of the resized image, in its pixels and in those of the image as it was."""

    size: int
    resized: int
    first: int
    length: int

    @classmethod
    def of(cls, size: int, resized: int) -> Span:
        """All of an axis that is resized from `size` pixels."""
        return cls(size, resized, 0, resized)

    @property
    def start(self) -> float:
        """Where it begins in the image as it was."""
        return self.first * self.size / self.resized

    @property
    def stop(self) -> float:
        """Where it ends in the image as it was."""
        return (self.first + self.length) * self.size / self.resized

    @property
    def is_whole(self) -> bool:
        """Whether it leaves nothing out."""
        return self.length == self.resized

    def around(self, first: int, length: int) -> Span:
        """The shortest that holds `length` pixels from `first` on and has ends that Pillow does not round.

        Pillow has them in single precision, and so their difference.
        """
        step = self.resized // math.gcd(self.size, self.resized)
        step //= step & -step  # every so many pixels `start` is a whole number of 1 / 2**n
        low, high = first // step * step, -(-(first + length) // step) * step
        span = Span(self.size, self.resized, low, high - low)
        told = (span.start, span.stop, span.stop - span.start)
        return span if all(float(np.float32(value)) == value for value in told) else self
