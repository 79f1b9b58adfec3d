"""Rows that are encoded images, one or several, decoded one after another where they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.errors import InputTooLarge, InvalidInput
from service.inputs.decoding import decode_image
from service.inputs.rows import Rows, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from service.protocol.body import Elements
    from service.store.manifest import Input


MOST_PIXELS = 512_000_000
"""In all images of one request together; a few seconds of a core's time."""


class Pixels:
    """Those of one request's images: a small body may hold very many, which compress to nothing."""

    def __init__(self, max_pixels: int) -> None:
        self._left = self._most = max(MOST_PIXELS, max_pixels)

    def count(self, pixels: int) -> None:
        """Raise `InputTooLarge` once an image is more than all may have."""
        self._left -= pixels
        if self._left < 0:
            raise InputTooLarge(f"the images have more than {self._most} pixels together")


def rows_from_image(content: bytes, spec: Input, max_pixels: int) -> Rows:
    """One JPEG or PNG, which becomes one uint8 row; writing it raises what `decode_image` raises."""
    return _ImageRows(shape_of(1, spec.shape, 1), "uint8", False, [content], "", spec, max_pixels)


def rows_from_images(
    contents: Elements | Sequence[bytes], spec: Input, max_rows: int, max_pixels: int
) -> Rows:
    """Several JPEGs and PNGs, at least one, which become uint8 rows.

    Raises `InputTooLarge` for more than `max_rows`; writing them raises what `decode_image` raises,
    naming the image, and `InputTooLarge` for more than `MOST_PIXELS` pixels together.
    """
    shape = shape_of(len(contents), spec.shape, max_rows)
    return _ImageRows(shape, "uint8", False, contents, "image {}: ", spec, max_pixels)


@dataclass(frozen=True)
class _ImageRows(Rows):
    contents: Elements | Sequence[bytes]
    prefix: str
    """What an error begins with, `{}` being the image's number."""
    spec: Input
    max_pixels: int

    def encoded(self) -> list[bytes]:
        return [bytes(content) for content in self.contents]

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        pixels = Pixels(self.max_pixels)
        for number, content in enumerate(self.contents):
            try:
                pixels.count(decode_image(content, self.spec, self.max_pixels, out[number]))
            except InvalidInput as error:
                raise type(error)(f"{self.prefix.format(number)}{error}") from error
            yield
