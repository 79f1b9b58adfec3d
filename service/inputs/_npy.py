"""The header of a `.npy` file (numpy.lib.format, versions 1.0 to 3.0), read without evaluating it.

NumPy reads the header with `ast.literal_eval`, whose cost and failures a stranger can choose. Of the
three entries only these few forms can describe rows, so they are matched instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from service.errors import InvalidTensor

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # by major version
_LONGEST = 4096  # NumPy writes 118 for any plain array
MOST_BYTES = 12 + _LONGEST
"""No header is read that ends behind so many bytes."""
_ENTRY = re.compile(
    rb"""['"](descr|fortran_order|shape)['"]\s*+:\s*+"""
    rb"""(True|False|\([-\d\s,]*+\)|['"][^'"]*+['"]|[\[{(])"""
)
_DTYPE = re.compile(rb"""['"]([<>=|]?)(u1|f4)['"]""")
_PLAIN = re.compile(rb"""['"]([<>=|]?[A-Za-z]\d{0,3})['"]""")
_INTEGER = re.compile(rb"-?\d+")


class NpyHeader(NamedTuple):
    """What the data of a `.npy` file are."""

    dtype: np.dtype[np.uint8] | np.dtype[np.float32]
    fortran_order: bool
    shape: tuple[int, ...]
    end: int
    """Bytes before the data."""


def read_npy_header(content: bytes) -> NpyHeader:
    """The header at the start of `content`, of which `MOST_BYTES` are enough; raises `InvalidTensor`."""
    text, end = _text(content)
    entries = _ENTRY.findall(text)
    values = dict(entries)
    if len(values) != 3 or len(entries) != 3 or values[b"fortran_order"] not in {b"True", b"False"}:
        raise InvalidTensor("the npy header does not hold descr, fortran_order and shape once each")
    return NpyHeader(
        _dtype(values[b"descr"]), values[b"fortran_order"] == b"True", _shape(values[b"shape"]), end
    )


def _text(content: bytes) -> tuple[bytes, int]:
    start = content[:12]
    if not start.startswith(_MAGIC):
        raise InvalidTensor("the npy content does not begin with the npy magic bytes")
    width = _LENGTH_BYTES.get(start[6]) if len(start) == 12 else None
    if width is None:
        raise InvalidTensor("the npy content is truncated or of an unknown version, expected 1.0, 2.0 or 3.0")
    length = int.from_bytes(start[8 : 8 + width], "little")
    if length > _LONGEST:
        raise InvalidTensor(f"the npy header has {length} bytes, at most {_LONGEST} are read")
    end = 8 + width + length
    if end > len(content):
        raise InvalidTensor("the npy content is truncated: it stops inside its header")
    return content[8 + width : end], end


def _dtype(descr: bytes) -> np.dtype[np.uint8] | np.dtype[np.float32]:
    known = _DTYPE.fullmatch(descr)
    if known is None:
        plain = _PLAIN.fullmatch(descr)
        got = plain[1].decode() if plain else "a structured or unknown type"
        raise InvalidTensor(f"the npy array has dtype {got}, expected uint8 (|u1) or float32 (<f4)")
    if known[2] == b"u1":
        return np.dtype(np.uint8)
    return np.dtype(np.float32).newbyteorder(">" if known[1] == b">" else "<")


def _shape(value: bytes) -> tuple[int, ...]:
    shape = tuple(int(axis) for axis in _INTEGER.findall(value))
    if not value.endswith(b")") or any(not 0 <= axis < 2**63 for axis in shape):
        raise InvalidTensor("the npy header gives an impossible shape")
    return shape
