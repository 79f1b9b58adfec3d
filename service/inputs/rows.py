"""The rows of a body: first how much they are, then written into memory that somebody else has.

What the two dtypes mean: `uint8` rows are pixels 0..255 that the server scales and normalises with
the model's mean and std; `float32` rows are network inputs, already normalised, and reach the
network as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from service.errors import InputTooLarge, InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Dtype = Literal["uint8", "float32"]

# A layer that overflows makes inf - inf, and a fused ReLU makes 0 of that: a wrong answer that looks right.
_LARGEST = 1e9


@dataclass(frozen=True)
class Rows(ABC):
    """What one body holds, known before memory is taken for it."""

    shape: tuple[int, int, int, int]
    """`[N, C, H, W]`, N at least 1 and at most what was allowed."""
    dtype: Dtype
    is_quick: bool
    """Whether writing takes less time than handing it to another thread."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def write(self, out: npt.NDArray[Any], check: Callable[[], None] = lambda: None) -> None:
        """Fill `out`, which has `shape` and `dtype`, native byte order and C order.

        Before, and now and then where it takes long, `check` is called, which ends it by raising. Raises
        `InvalidInput` and its kinds, with `out` then partly written, and `ValueError` for another
        `out`. Nothing but `out` is written to, and nothing refers to it afterwards.
        """
        if out.shape != self.shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f"{self.dtype} rows {self.shape} do not fit into {out.dtype} {out.shape}")
        check()
        for _ in self._write(out) or ():
            check()

    def encoded(self) -> list[bytes] | None:
        """The images as they were sent, for rows that are images; raises what writing them raises."""
        return None

    @abstractmethod
    def _write(self, out: npt.NDArray[Any]) -> Iterator[None] | None:
        """Where it takes long, an iterator that stops now and then."""


def shape_of(count: int, row: list[int], max_rows: int) -> tuple[int, int, int, int]:
    """`[N, C, H, W]` of `count` rows of shape `row`; raises `InputTooLarge` for more than `max_rows`."""
    if count > max_rows:
        raise InputTooLarge(f"{count} rows were sent, over the limit of {max_rows} rows")
    channels, height, width = row
    return count, channels, height, width


def refuse_unusable(rows: npt.NDArray[Any]) -> None:
    """Raise `InvalidTensor`, naming the row, for a float32 that is not finite or beyond 1e9."""
    if _is_usable(rows):
        return
    number, row = next((number, row) for number, row in enumerate(rows) if not _is_usable(row))
    if np.isfinite(row).all():
        raise InvalidTensor(f"row {number} holds numbers beyond ±{_LARGEST:.0e}, expected normalised inputs")
    raise InvalidTensor(f"row {number} holds NaN or infinity, expected finite numbers")


def _is_usable(rows: npt.NDArray[Any]) -> bool:
    return bool(
        rows.max() <= _LARGEST and rows.min() >= -_LARGEST
    )  # NaN comes through both, and compares false
