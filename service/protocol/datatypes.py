"""Datatypes: the protocol's names of them, and shapes that can be trusted."""

from __future__ import annotations

import math
from typing import Any

from service.errors import InvalidTensor

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("INT32", "UINT32", "FP32"), 4),
    **dict.fromkeys(("INT64", "UINT64", "FP64"), 8),
}
"""Of every datatype whose elements have one size; those of BYTES have not."""
DATATYPES = (*ITEM_BYTES, "BYTES")
BINARY_ONLY = ("FP16", "BF16")
"""What has no form in JSON."""

_MOST_AXES = 8
_MOST_ELEMENTS = 2**31 - 1


def checked_shape(value: Any, at: str) -> tuple[int, ...]:
    """A shape as a document gives it; raises `InvalidTensor` for one that no tensor can have."""
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_AXES:
        raise InvalidTensor(f"{at} is no list of 1 to {_MOST_AXES} integers")
    if not all(type(axis) is int and 0 < axis <= _MOST_ELEMENTS for axis in value):
        raise InvalidTensor(f"{at} holds what is no integer in 1..{_MOST_ELEMENTS}")
    if math.prod(value) > _MOST_ELEMENTS:
        raise InvalidTensor(f"{at} is of more than {_MOST_ELEMENTS} elements")
    return tuple(value)


def checked_datatype(value: Any, at: str) -> str:
    """A datatype as a document gives it; raises `InvalidTensor` for none of the protocol's."""
    if not isinstance(value, str) or value not in DATATYPES:
        raise InvalidTensor(f"{at} is none of {', '.join(DATATYPES)}")
    return value
