"""Rows that lie in memory already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from service.inputs.rows import Rows, shape_of

if TYPE_CHECKING:
    import numpy.typing as npt

_QUICK_BYTES = 1 << 16


def rows_from_array(rows: npt.NDArray[Any]) -> Rows:
    """The rows of an array, uint8 pixels or float32 network inputs, `[N, C, H, W]`."""
    dtype: Literal["uint8", "float32"] = "uint8" if rows.dtype == "uint8" else "float32"
    shape = shape_of(len(rows), list(rows.shape[1:]), len(rows))
    return _ArrayRows(shape, dtype, rows.nbytes <= _QUICK_BYTES, rows)


@dataclass(frozen=True)
class _ArrayRows(Rows):
    rows: npt.NDArray[Any]

    def _write(self, out: npt.NDArray[Any]) -> None:
        out[:] = self.rows
