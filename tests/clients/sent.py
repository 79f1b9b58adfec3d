"""What the programs in this folder send, each in an environment without foldserve, and how they begin."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Sent:
    """Rows in every form, and the right answers."""

    address: str
    inputs: np.ndarray
    pixels: np.ndarray
    logits: np.ndarray
    images: np.ndarray
    """Encoded, dtype object, `[N]`."""

    def check(self, found: np.ndarray, rows: int | None = None, tolerance: float = 1e-4) -> None:
        """Fail unless `found` are the answers to the first so many rows."""
        np.testing.assert_allclose(found, self.logits[:rows], rtol=tolerance, atol=tolerance)


def begin(checks: Mapping[str, Callable[[Sent], None]]) -> None:
    """Run the one check that the command line names: ADDRESS FILE CHECK."""
    address, file, name = sys.argv[1:]
    loaded = np.load(file)
    ends = np.cumsum(loaded["lengths"])
    content = loaded["images"].tobytes()
    images = [content[end - length : end] for end, length in zip(ends, loaded["lengths"], strict=True)]
    checks[name](
        Sent(address, loaded["inputs"], loaded["pixels"], loaded["logits"], np.array(images, dtype=object))
    )
