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
_WITHOUT_BRACKETS = bytes.maketrans(b"[]", b"  ")
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

    def write(self, shape: Sequence[int], out: npt.NDArray[Any], at: str) -> Iterator[None]:
        """Fill `out`, flat, float32 or uint8, as long as `shape` says; they are flat or nested in that shape.

        Stops now and then, so that whoever waits for it may give up. A uint8 is an integer in 0..255 as
        JSON writes it. A float32 that overflows becomes infinite. Raises `InvalidTensor`, which says what
        stands `at` this name and why it is not that.
        """
        kind: Literal["d", "u"] = "u" if out.dtype == np.uint8 else "d"
        position, parser = 0, simdjson.Parser()
        for segment in self._lists(shape, at):
            values = _values(parser, segment, kind, position, at)
            if not len(values) or position + len(values) > len(out):
                raise InvalidTensor(f"{at} does not hold {len(out)} numbers, as its shape {list(shape)} says")
            with np.errstate(over="ignore"):  # whoever reads the rows refuses what is not finite
                out[position : position + len(values)] = values
            position += len(values)
            yield
        if position != len(out):
            raise InvalidTensor(f"{at} holds {position} numbers, expected {len(out)} of shape {list(shape)}")

    def _lists(self, shape: Sequence[int], at: str) -> Iterator[bytes]:
        """The elements as lists, cut at commas.

        The brackets must be those of `shape`, or one pair around all.
        """
        first, last = self.start + 1, self.stop - 1
        if self.content.find(b"[", first, last) < 0 and self.content.find(b"]", first) == last:
            return (b"[%b]" % segment for segment in _segments(self.content, first, last))
        # Each number takes a digit and what separates it: a short text is not compared with a long skeleton.
        if 2 * math.prod(shape) > len(self):
            raise _not_nested(shape, at)
        return _closed(_segments(self.content, self.start, self.stop), shape, at)


def _segments(text: bytes, start: int, end: int) -> Iterator[bytes]:
    """The text, cut at commas."""
    while start <= end:
        stop = text.find(b",", start + _SEGMENT_BYTES, end)
        stop = end if stop < 0 else stop
        yield text[start:stop]
        start = stop + 1


def _closed(segments: Iterator[bytes], shape: Sequence[int], at: str) -> Iterator[bytes]:
    """Segments of nested lists, each a whole list by the brackets that are open where it begins and ends."""
    skeleton, place, depth = _skeleton(shape) + b",", 0, 0
    for segment in segments:
        bones = segment.translate(None, _BETWEEN) + b","
        if not skeleton.startswith(bones, place):
            raise _not_nested(shape, at)
        place, opened = place + len(bones), depth
        depth += bones.count(b"[") - bones.count(b"]")
        yield b"[" * opened + segment + b"]" * depth
    if place != len(skeleton):
        raise _not_nested(shape, at)


def _skeleton(shape: Sequence[int]) -> bytes:
    """What is left of nested lists without their numbers."""
    inner = b""
    for axis in reversed(shape):
        inner = b"[" + b",".join([inner] * axis) + b"]"
    return inner


def _not_nested(shape: Sequence[int], at: str) -> InvalidTensor:
    return InvalidTensor(f"{at} is neither flat nor nested in its shape {list(shape)}")


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
        orjson.loads(segment)  # the brackets are where they belong
        values = orjson.loads(b"[%b]" % segment.translate(_WITHOUT_BRACKETS))
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
