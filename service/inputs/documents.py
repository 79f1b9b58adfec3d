"""Rows in a JSON document: nested numbers, or encoded images as base64."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from service.errors import InputTooLarge, InvalidImage, InvalidTensor
from service.inputs._nested import kind, row_from_lists, row_shape
from service.inputs.decoding import decode_image
from service.inputs.images import Pixels
from service.inputs.rows import Dtype, Rows, refuse_unusable, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from service.store.manifest import Input

QUICK_BYTES = 16 * 1024
"""So long a document is read in less time than handing it to another thread takes."""
_NAMED_CHARACTERS = 40
# So many lists or objects take a few milliseconds, and what is wrong with them can be said more exactly.
_FEW = 10_000


def rows_from_json(content: bytes, dtype: Dtype, spec: Input, max_rows: int, max_pixels: int) -> Rows:
    """Rows of `{"inputs": [...]}`: all of them nested numbers, or all of them `{"b64": "..."}` images.

    `dtype` says what the numbers are; they have the shape `spec.shape`, or height and width alone
    for one channel. A uint8 number is an integer as JSON writes it: 1.0 is refused, being more
    likely an already scaled pixel. Images are JPEG or PNG in the base64 of RFC 4648, section 4, and
    become uint8 rows whatever `dtype` says. Of a key given twice the last value counts.

    Parses the whole document, in which it holds the interpreter's lock: one with more lists or objects
    than `max_rows` rows have is not parsed. Raises `InvalidTensor` for another structure and
    `InputTooLarge` for more than `max_rows` rows; writing the rows raises `InvalidTensor`,
    `InvalidImage`, and `InputTooLarge` for an image of more than `max_pixels` pixels, or all together
    of more than `MOST_PIXELS`. Each names a position such as
    `inputs[3][0][5]`, or the row where a number is beyond 1e9.
    """
    _check_brackets(content, spec, max_rows)
    items = _items(content)
    _check_kinds(items, spec)
    if isinstance(items[0], dict):
        shape = shape_of(len(items), spec.shape, max_rows)
        return _ImageRows(shape, "uint8", False, items, spec, max_pixels)
    nested_shape = row_shape(items, spec)
    shape = shape_of(len(items), spec.shape, max_rows)
    return _NumberRows(shape, dtype, len(content) <= QUICK_BYTES, items, nested_shape)


@dataclass(frozen=True)
class _NumberRows(Rows):
    items: list[Any]
    nested_shape: list[int]

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        for number, item in enumerate(self.items):
            row = row_from_lists(item, self.dtype, self.nested_shape, f"inputs[{number}]")
            out[number] = row.reshape(out.shape[1:])
            yield
        if self.dtype == "float32":
            refuse_unusable(out)


@dataclass(frozen=True)
class _ImageRows(Rows):
    items: list[dict[str, Any]]
    spec: Input
    max_pixels: int

    def encoded(self) -> list[bytes]:
        return [self._encoded(number) for number in range(len(self.items))]

    def _encoded(self, number: int) -> bytes:
        at = f"inputs[{number}]"
        _check_keys(self.items[number], "b64", at)
        return from_base64(self.items[number]["b64"], f"{at}.b64")

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        pixels = Pixels(self.max_pixels)
        for number in range(len(self.items)):
            at, encoded = f"inputs[{number}]", self._encoded(number)
            try:
                pixels.count(decode_image(encoded, self.spec, self.max_pixels, out[number]))
            except (InvalidImage, InputTooLarge) as error:
                raise type(error)(f"{at}.b64: {error}") from error
            yield


def _check_brackets(content: bytes, spec: Input, max_rows: int) -> None:
    """Lists and objects take twenty times as long as the numbers or the text of as many bytes."""
    channels, height, _ = spec.shape
    most_lists, most_objects = 1 + max_rows * (1 + channels + channels * height), 1 + max_rows
    if content.count(b"[") > max(most_lists, _FEW) or content.count(b"{") > max(most_objects, _FEW):
        raise InputTooLarge(
            f"the JSON has more lists or objects than {max_rows} rows of shape {spec.shape}, the limit"
        )


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


def from_base64(text: object, at: str) -> bytes:
    """The bytes of a base64 string that stands at `at`; raises `InvalidTensor` and `InvalidImage`."""
    if not isinstance(text, str):
        raise InvalidTensor(f"{at} is {kind(text)}, expected a string")
    try:
        encoded = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, and any character outside ASCII
        encoded = None
    if encoded is None or len(text) % 4 or text.endswith("==="):  # padding, of which Python takes too much
        raise InvalidImage(f"{at} is not plain base64 (padded, no line breaks, no data: prefix)")
    return encoded
