"""Numbers: an array in the text of a JSON document, read straight into memory that somebody else has.

A list of Python floats would take three times as long to make as the numbers take to read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
import simdjson

from service.errors import InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

# Read at once, which nobody can interrupt; longer ones take their memory from the system each time.
_SEGMENT_BYTES = 32 * 1024
_BETWEEN = b"0123456789eE+-. \t\r\n"
_REFUSED = (ValueError, TypeError, RuntimeError)  # simdjson's, by the kind of what it met
_NUMBERS = {int, float}


@dataclass(frozen=True)
class Numbers:
    """What stands from a `[` to a `]`; that these are numbers is known when they are read."""

    content: bytes
    """A document that holds them; it is not copied."""
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def write(self, shape: Sequence[int], out: npt.NDArray[Any], at: str) -> None:
        """Fill `out`, flat, float32 or uint8, as long as `shape` says; they are flat or nested in that shape.

        A uint8 is an integer in 0..255 as JSON writes it. A float32 that overflows becomes infinite.
        Raises `InvalidTensor`, which says what stands `at` this name and why it is not that.
        """
        flat = self._flat(shape, at)
        kind: Literal["d", "u"] = "u" if out.dtype == np.uint8 else "d"
        position, parser = 0, simdjson.Parser()
        for segment in _segments(*flat):
            values = _values(parser, segment, kind, position, at)
            if not len(values) or position + len(values) > len(out):
                raise InvalidTensor(f"{at} does not hold {len(out)} numbers, as its shape {list(shape)} says")
            with np.errstate(over="ignore"):  # whoever reads the rows refuses what is not finite
                out[position : position + len(values)] = values
            position += len(values)
        if position != len(out):
            raise InvalidTensor(f"{at} holds {position} numbers, expected {len(out)} of shape {list(shape)}")

    def _flat(self, shape: Sequence[int], at: str) -> tuple[bytes, int, int]:
        """A text, and where in it the elements stand without brackets.

        The brackets must be those of `shape`, or one pair around all.
        """
        first, last = self.start + 1, self.stop - 1
        if self.content.find(b"[", first, last) < 0 and self.content.find(b"]", first) == last:
            return self.content, first, last
        # Each number takes a digit and what separates it: a short text is not compared with a long skeleton.
        text = self.content[self.start : self.stop]
        if 2 * math.prod(shape) > len(text) or text.translate(None, _BETWEEN) != _skeleton(shape):
            raise InvalidTensor(f"{at} is neither flat nor nested in its shape {list(shape)}")
        return text.replace(b"[", b" ").replace(b"]", b" "), 0, len(text)


def _skeleton(shape: Sequence[int]) -> bytes:
    """What is left of nested lists without their numbers."""
    inner = b""
    for axis in reversed(shape):
        inner = b"[" + b",".join([inner] * axis) + b"]"
    return inner


def _segments(flat: bytes, start: int, end: int) -> Iterator[bytes]:
    """The elements as lists, cut at commas; an element that is missing becomes an empty list."""
    while start <= end:
        stop = flat.find(b",", start + _SEGMENT_BYTES, end)
        stop = end if stop < 0 else stop
        yield b"[%b]" % flat[start:stop]
        start = stop + 1


def _values(
    parser: simdjson.Parser, segment: bytes, kind: Literal["d", "u"], before: int, at: str
) -> npt.NDArray[Any]:
    """float64, or uint64 that are bytes; `before` elements stand before these."""
    try:
        parsed: Any = parser.parse(segment)
        values = np.frombuffer(parsed.as_buffer(of_type=kind), {"d": np.float64, "u": np.uint64}[kind])
    except _REFUSED:
        values = _slowly(segment, kind, before, at)
    if kind == "u" and len(values) and values.max() > 255:
        index = before + int(np.argmax(values > 255))
        raise InvalidTensor(f"{at}[{index}] is outside 0..255 (UINT8)")
    return values


def _slowly(segment: bytes, kind: Literal["d", "u"], before: int, at: str) -> npt.NDArray[Any]:
    """What simdjson does not take: integers beyond 64 bits, which are floats too, or a mistake to name."""
    try:
        values = orjson.loads(segment)
    except orjson.JSONDecodeError:
        raise InvalidTensor(f"{at} is not JSON behind its element {before}") from None
    wanted = _NUMBERS if kind == "d" else {int}
    wrong = next((index for index, value in enumerate(values) if type(value) not in wanted), None)
    if wrong is None and kind == "u":
        wrong = next((index for index, value in enumerate(values) if value < 0), None)
    if wrong is not None:
        said = "a number" if kind == "d" else "an integer in 0..255 (UINT8)"
        raise InvalidTensor(f"{at}[{before + wrong}] is not {said}")
    return np.array(values, np.float64 if kind == "d" else np.uint64)
