"""Rows as numbers: raw octets, `.npy` files and JSON.

What the two dtypes mean: `uint8` rows are pixels 0..255 that the server scales and normalises with
the model's mean and std; `float32` rows are network inputs, already normalised, and reach the
network as they are. Every answer is `[N, C, H, W]`, native byte order, C-contiguous, N at least 1,
and finite throughout. It may be a read-only view of the content.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson

from service.errors import InputTooLarge, InvalidImage, InvalidTensor
from service.inputs._nested import kind, row_shape, rows_from_lists
from service.inputs._npy import NpyHeader, read_npy_header
from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.store.manifest import Input

_LITTLE_ENDIAN: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
_NAMED_CHARACTERS = 40
# A layer that overflows makes inf - inf, and a fused ReLU makes 0 of that: a wrong answer that looks right.
_LARGEST = 1e9


def rows_from_octets(
    content: bytes | memoryview, dtype: Literal["uint8", "float32"], spec: Input, max_rows: int
) -> npt.NDArray[np.uint8 | np.float32]:
    """Rows that follow one another in `content`, little-endian, without any header.

    Raises `InvalidTensor` for a length that is no whole number of rows and for values that are
    not finite, `InputTooLarge` for more than `max_rows` rows.
    """
    source, length = _LITTLE_ENDIAN[dtype], memoryview(content).nbytes
    row_length = math.prod(spec.shape) * source.itemsize
    count, rest = divmod(length, row_length)
    if rest or not count:
        raise InvalidTensor(
            f"{length} bytes are not whole rows: a {dtype} row of shape {spec.shape} has {row_length} bytes"
        )
    _check_count(count, max_rows)
    return _rows(np.frombuffer(content, source).reshape(count, *spec.shape))


def rows_from_npy(
    content: bytes | memoryview, spec: Input, max_rows: int
) -> npt.NDArray[np.uint8 | np.float32]:
    """Rows of a `.npy` file: uint8 or float32 of either byte order and memory order, `[N, C, H, W]` or
    one row `[C, H, W]`.

    Raises `InvalidTensor` for any other dtype, shape or length and for values that are not
    finite, `InputTooLarge` for more than `max_rows` rows. Nothing is ever unpickled or evaluated.
    """
    view = memoryview(content).cast("B")
    header = read_npy_header(view)
    _check_shape(header, spec, max_rows)
    expected = math.prod(header.shape) * header.dtype.itemsize
    if len(view) - header.end != expected:
        raise InvalidTensor(
            f"the npy header promises {expected} bytes of data, but {len(view) - header.end} follow it"
        )
    array: npt.NDArray[Any] = np.frombuffer(view, header.dtype, offset=header.end)
    array = array.reshape(header.shape, order="F" if header.fortran_order else "C")
    return _rows(array.reshape(-1, *spec.shape))


def rows_from_json(
    content: bytes, dtype: Literal["uint8", "float32"], spec: Input, max_rows: int, max_pixels: int
) -> npt.NDArray[np.uint8 | np.float32]:
    """Rows of `{"inputs": [...]}`: all of them nested numbers, or all of them `{"b64": "..."}` images.

    `dtype` says what the numbers are; they have the shape `spec.shape`, or height and width alone
    for one channel. A uint8 number is an integer as JSON writes it: 1.0 is refused, being more
    likely an already scaled pixel. Images are JPEG or PNG in the base64 of RFC 4648, section 4, and
    become uint8 rows whatever `dtype` says. Of a key given twice the last value counts.

    Raises `InvalidTensor` or `InvalidImage`, which name a position such as `inputs[3][0][5]`, and
    `InputTooLarge` for more than `max_rows` rows or for an image of more than `max_pixels` pixels.
    """
    items = _items(content)
    _check_kinds(items, spec)
    if isinstance(items[0], dict):
        _check_count(len(items), max_rows)
        return np.stack([_image(item, index, spec, max_pixels) for index, item in enumerate(items)])
    shape = row_shape(items, spec)
    _check_count(len(items), max_rows)
    return rows_from_lists(items, dtype, shape).reshape(len(items), *spec.shape)


def _check_count(count: int, max_rows: int) -> None:
    if count > max_rows:
        raise InputTooLarge(f"{count} rows were sent, over the limit of {max_rows} rows")


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8 | np.float32]:
    if array.dtype.kind == "u":
        return np.ascontiguousarray(array, np.uint8)
    rows = np.ascontiguousarray(array, np.float32)
    is_usable = (np.abs(rows) <= _LARGEST).reshape(len(rows), -1).all(axis=1)
    if not is_usable.all():
        row = is_usable.argmin()
        if np.isfinite(rows[row]).all():
            raise InvalidTensor(f"row {row} holds numbers beyond ±{_LARGEST:.0e}, expected normalised inputs")
        raise InvalidTensor(f"row {row} holds NaN or infinity, expected finite numbers")
    return rows


def _check_shape(header: NpyHeader, spec: Input, max_rows: int) -> None:
    axes = len(header.shape)
    if axes not in {3, 4} or list(header.shape[-3:]) != spec.shape:
        got = f"shape {list(header.shape)}" if axes <= 8 else f"{axes} axes"
        expected = ", ".join(map(str, spec.shape))
        raise InvalidTensor(f"the npy array has {got}, expected [N, {expected}] or [{expected}]")
    if header.shape[0] == 0:
        raise InvalidTensor("the npy array holds no rows, expected at least 1")
    if axes == 4:
        _check_count(header.shape[0], max_rows)


def _items(content: bytes) -> list[Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidTensor(f"the content is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidTensor(f'the JSON is {kind(document)}, expected an object {{"inputs": [...]}}')
    _check_keys(document, "inputs", "the JSON object")
    items = document["inputs"]
    if not isinstance(items, list) or not items:
        raise InvalidTensor(f"inputs is {kind(items) if items != [] else 'empty'}, expected a list of rows")
    return items


def _check_keys(found: dict[str, Any], expected: str, where: str) -> None:
    for key in found:
        if key != expected:
            raise InvalidTensor(
                f"{where} has an unknown key {key[:_NAMED_CHARACTERS]!r}, expected {expected!r}"
            )
    if not found:
        raise InvalidTensor(f"{where} is empty, expected the key {expected!r}")


def _check_kinds(items: list[Any], spec: Input) -> None:
    expected: type = dict if isinstance(items[0], dict) else list
    for index, item in enumerate(items):
        if not isinstance(item, expected):
            wanted = 'an image as {"b64": "..."}' if expected is dict else f"a list of shape {spec.shape}"
            raise InvalidTensor(f"inputs[{index}] is {kind(item)}, expected {wanted} (all of one kind)")


def _image(item: dict[str, Any], index: int, spec: Input, max_pixels: int) -> npt.NDArray[np.uint8]:
    at = f"inputs[{index}]"
    _check_keys(item, "b64", at)
    encoded = _from_base64(item["b64"], f"{at}.b64")
    try:
        return decode_image(encoded, spec, max_pixels)
    except (InvalidImage, InputTooLarge) as error:
        raise type(error)(f"{at}.b64: {error}") from error


def _from_base64(text: object, at: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidTensor(f"{at} is {kind(text)}, expected a string")
    try:
        encoded = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, and any character outside ASCII
        encoded = None
    if encoded is None or len(text) % 4 or text.endswith("==="):  # padding, of which Python takes too much
        raise InvalidImage(f"{at} is not plain base64 (padded, no line breaks, no data: prefix)")
    return encoded
