"""Nested JSON lists to rows of numbers, with the position of whatever does not belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from service.errors import InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from service.store.manifest import Input

_NUMBERS = {int, float}
_KINDS = {
    str: "a string",
    bool: "a boolean",
    type(None): "null",
    dict: "an object",
    list: "a list",
    int: "an integer",
    float: "a number with a fraction or exponent",
}


def kind(value: object) -> str:
    """What a parsed JSON value is, in words."""
    return _KINDS[type(value)]


def row_shape(items: list[Any], spec: Input) -> list[int]:
    """The shape that each item must have: `spec.shape`, or without its channel axis where that is 1
    and the first item has none.

    Raises `InvalidTensor` where `items` is itself one row.
    """
    shapes = [spec.shape, spec.shape[1:]] if spec.shape[0] == 1 else [spec.shape]
    outer, inner = _first_lengths(items), _first_lengths(items[0])
    fitting = [shape for shape in shapes if len(shape) == len(inner)]
    if not fitting and outer in shapes:
        raise InvalidTensor(f"inputs is a single row of shape {outer}, expected a list of such rows")
    return (fitting or shapes)[0]


def row_from_lists(
    item: object, dtype: Literal["uint8", "float32"], shape: list[int], at: str
) -> npt.NDArray[np.uint8 | np.float32]:
    """One row, `shape` of `dtype`, which stands at `at`; raises `InvalidTensor`, which names a position
    such as `inputs[3][0][5]`.
    """
    _check(item, shape, at, {"uint8": _check_bytes, "float32": _check_floats}[dtype])
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        row: npt.NDArray[np.uint8 | np.float32] = np.array(item, dtype=dtype)
    if dtype == "float32":
        _check_range(row, at)
    return row


def _first_lengths(value: object) -> list[int]:
    """The shape as far as the first elements tell it."""
    lengths: list[int] = []
    while isinstance(value, list) and len(lengths) < 5:
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths


def _check(value: object, shape: Sequence[int], at: str, check: Callable[[list[Any], str], None]) -> None:
    if not isinstance(value, list):
        raise InvalidTensor(f"{at} is {kind(value)}, expected a list of shape {list(shape)}")
    if len(value) != shape[0]:
        raise InvalidTensor(f"{at} has length {len(value)}, expected a list of shape {list(shape)}")
    if len(shape) == 1:
        check(value, at)
        return
    for index, element in enumerate(value):
        _check(element, shape[1:], f"{at}[{index}]", check)


def _check_floats(values: list[Any], at: str) -> None:
    if not set(map(type, values)) <= _NUMBERS:  # a boolean is not a number here
        index = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
        raise InvalidTensor(f"{at}[{index}] is {kind(values[index])}, expected a number")


def _check_bytes(values: list[Any], at: str) -> None:
    if set(map(type, values)) != {int}:
        index = next(i for i, value in enumerate(values) if type(value) is not int)
        raise InvalidTensor(f"{at}[{index}] is {kind(values[index])}, expected an integer in 0..255 (uint8)")
    try:
        bytes(values)
    except ValueError:
        index = next(i for i, value in enumerate(values) if not 0 <= value <= 255)
        raise InvalidTensor(f"{at}[{index}] is outside 0..255 (uint8)") from None


def _check_range(row: npt.NDArray[np.uint8 | np.float32], at: str) -> None:
    finite = np.isfinite(row)
    if not finite.all():
        position = "".join(f"[{index}]" for index in np.argwhere(~finite)[0])
        raise InvalidTensor(f"{at}{position} is outside the range of float32")
