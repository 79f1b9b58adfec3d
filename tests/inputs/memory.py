"""Memory that rows are written to, in the middle of memory that must stay as it is."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    from service.inputs.rows import Rows
    from service.store.manifest import Input

_EDGE = 64


def written(rows: Rows) -> np.ndarray:
    """What `rows` writes, and nothing beside it."""
    memory = np.full(2 * _EDGE + int(np.prod(rows.shape)) * np.dtype(rows.dtype).itemsize, 0xA5, np.uint8)
    out = memory[_EDGE:-_EDGE].view(rows.dtype).reshape(rows.shape)
    rows.write(out)
    assert (memory[:_EDGE] == 0xA5).all()
    assert (memory[-_EDGE:] == 0xA5).all()
    return out


def decoded(content: bytes, spec: Input, max_pixels: int) -> np.ndarray:
    """The row `[C, H, W]` that an encoded image is."""
    out = np.full(spec.shape, 0xA5, np.uint8)
    decode_image(content, spec, max_pixels, out)
    return out


def pieces(content: bytes, *cuts: int) -> list[bytes]:
    """`content`, cut at these positions."""
    ends = [0, *sorted(cuts), len(content)]
    return [content[start:end] for start, end in pairwise(ends)]
