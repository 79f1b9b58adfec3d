"""Batches: pictures as the pixels that serving would make of them, a few at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from service.errors import InvalidInput
from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.evaluation.pictures import Picture
    from service.store.manifest import Input


@dataclass(frozen=True)
class Unreadable:
    """A file that serving would refuse, and why."""

    image: str
    reason: str

    @classmethod
    def of(cls, picture: Picture, error: InvalidInput | OSError) -> Self:
        """What reading or decoding it raised."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return cls(picture.name, reason)


@dataclass(frozen=True)
class Batch:
    """Pictures that could be read."""

    pictures: tuple[Picture, ...]
    pixels: np.ndarray
    """uint8 `[N, C, H, W]`."""


@dataclass(frozen=True)
class Batches:
    """Reads pictures in their order, with the limits of a request's body."""

    spec: Input
    rows: int
    """In one batch, at most."""
    max_bytes: int
    max_pixels: int
    # What has been found so far.
    unreadable: list[Unreadable] = field(default_factory=list)

    def of(self, pictures: Sequence[Picture]) -> Iterator[Batch]:
        """The batches; none is empty, and no more than one is in memory."""
        for start in range(0, len(pictures), self.rows):
            batch = self._batch(pictures[start : start + self.rows])
            if batch.pictures:
                yield batch

    def _batch(self, pictures: Sequence[Picture]) -> Batch:
        pixels = np.empty((len(pictures), *self.spec.shape), np.uint8)
        read: list[Picture] = []
        for picture in pictures:
            try:
                decode_image(
                    content_of(picture, self.max_bytes), self.spec, self.max_pixels, pixels[len(read)]
                )
                read.append(picture)
            except (InvalidInput, OSError) as error:
                self.unreadable.append(Unreadable.of(picture, error))
        return Batch(tuple(read), pixels[: len(read)])


def content_of(picture: Picture, max_bytes: int) -> bytes:
    """The file, as a request would send it; raises `InvalidInput` or `OSError`."""
    if not picture.path.is_file():
        raise InvalidInput("it is not a regular file")
    if picture.path.stat().st_size > max_bytes:
        raise InvalidInput(f"it is larger than {max_bytes} bytes, the limit of a request")
    return picture.path.read_bytes()
