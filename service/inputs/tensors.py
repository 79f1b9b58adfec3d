"""Rows as they lie in memory: raw octets and `.npy` files, in the pieces in which they arrived.

The pieces are copied once, one by one, to where the rows are wanted; they are never joined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from service.errors import InvalidTensor
from service.inputs._npy import MOST_BYTES, NpyHeader, read_npy_header
from service.inputs.rows import Dtype, Rows, refuse_unusable, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from service.store.manifest import Input

_LITTLE_ENDIAN: dict[Dtype, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
# As much, a row of 3x224x224, is copied and checked in the 60 microseconds that another thread costs.
_QUICK_BYTES = 640 * 1024
# Turning Fortran order around takes some ten times as long.
_QUICK_FORTRAN_BYTES = _QUICK_BYTES // 16


def rows_from_octets(chunks: Sequence[bytes | memoryview], dtype: Dtype, spec: Input, max_rows: int) -> Rows:
    """Rows that follow one another in `chunks`, little-endian, without any header.

    Raises `InvalidTensor` for a length that is no whole number of rows, `InputTooLarge` for more
    than `max_rows` rows; writing them raises `InvalidTensor` for values that are not finite or beyond 1e9.
    """
    stored, length = _LITTLE_ENDIAN[dtype], sum(map(len, chunks))
    row_length = math.prod(spec.shape) * stored.itemsize
    count, rest = divmod(length, row_length)
    if rest or not count:
        raise InvalidTensor(
            f"{length} bytes are not whole rows: a {dtype} row of shape {spec.shape} has {row_length} bytes"
        )
    shape = shape_of(count, spec.shape, max_rows)
    return _TensorRows(shape, dtype, length <= _QUICK_BYTES, chunks, 0, stored, None)


def rows_from_npy(chunks: Sequence[bytes | memoryview], spec: Input, max_rows: int) -> Rows:
    """Rows of a `.npy` file: uint8 or float32 of either byte order and memory order, `[N, C, H, W]` or
    one row `[C, H, W]`.

    Raises `InvalidTensor` for any other dtype, shape or length, `InputTooLarge` for more than
    `max_rows` rows; writing them raises `InvalidTensor` for values that are not finite or beyond 1e9.
    Nothing is ever unpickled or evaluated.
    """
    header = read_npy_header(_beginning(chunks, MOST_BYTES))
    shape = _checked_shape(header, spec, max_rows)
    expected = math.prod(header.shape) * header.dtype.itemsize
    following = sum(map(len, chunks)) - header.end
    if following != expected:
        raise InvalidTensor(f"the npy header promises {expected} bytes of data, but {following} follow it")
    fortran_shape = header.shape if header.fortran_order else None
    is_quick = expected <= (_QUICK_FORTRAN_BYTES if fortran_shape else _QUICK_BYTES)
    dtype: Dtype = "uint8" if header.dtype.kind == "u" else "float32"
    return _TensorRows(shape, dtype, is_quick, chunks, header.end, header.dtype, fortran_shape)


@dataclass(frozen=True)
class _TensorRows(Rows):
    chunks: Sequence[bytes | memoryview]
    start: int
    """Bytes before the first number."""
    stored: np.dtype[Any]
    fortran_shape: tuple[int, ...] | None
    """The shape of what is stored in Fortran order; None for C order."""

    def _write(self, out: npt.NDArray[Any]) -> None:
        if self.fortran_shape is None:
            _copy(self.chunks, self.start, out)
        else:
            stored = np.empty_like(out)
            _copy(self.chunks, self.start, stored)
            out[...] = stored.reshape(-1).reshape(self.fortran_shape, order="F")
        if not self.stored.isnative:
            out.byteswap(inplace=True)
        if self.dtype == "float32":
            refuse_unusable(out)


def _copy(chunks: Sequence[bytes | memoryview], start: int, out: npt.NDArray[Any]) -> None:
    """All bytes from `start` on; `out` has exactly as many."""
    target, position = out.data.cast("B"), 0
    for chunk in chunks:
        part = memoryview(chunk)[start:]
        start = max(start - len(chunk), 0)
        target[position : position + len(part)] = part
        position += len(part)


def _beginning(chunks: Sequence[bytes | memoryview], length: int) -> bytes:
    """The first `length` bytes, or all where they are fewer."""
    start = bytearray()
    for chunk in chunks:
        if len(start) >= length:
            break
        start += chunk[: length - len(start)]
    return bytes(start)


def _checked_shape(header: NpyHeader, spec: Input, max_rows: int) -> tuple[int, int, int, int]:
    axes = len(header.shape)
    if axes not in {3, 4} or list(header.shape[-3:]) != spec.shape:
        got = f"shape {list(header.shape)}" if axes <= 8 else f"{axes} axes"
        expected = ", ".join(map(str, spec.shape))
        raise InvalidTensor(f"the npy array has {got}, expected [N, {expected}] or [{expected}]")
    if header.shape[0] == 0:
        raise InvalidTensor("the npy array holds no rows, expected at least 1")
    return shape_of(header.shape[0] if axes == 4 else 1, spec.shape, max_rows)
