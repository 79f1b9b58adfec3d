"""Documents: the JSON of a request, parsed without its arrays of numbers, which stay text for now."""

from __future__ import annotations

import re
import secrets
from typing import Any, NamedTuple

import orjson

from service.errors import InputTooLarge, InvalidTensor
from service.protocol.numbers import Numbers

# In JSON no other text looks like this: a quote inside a string has a backslash before it.
_KEY = re.compile(rb'"data"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')
_ENDS = (b'"', b"}")
_MOST_ARRAYS = 16  # what follows is parsed as the rest of the document
_MOST_VALUES = 10_000
# The key of what stands for an array that was taken out: nobody outside can know it.
_MARK = secrets.token_hex(8)


class Document(NamedTuple):
    """A parsed document."""

    root: dict[str, Any]
    arrays: list[Numbers]

    def numbers(self, value: Any) -> Numbers | None:
        """The array that `value` stands for, if it is one of numbers."""
        if isinstance(value, dict) and _MARK in value:
            return self.arrays[value[_MARK]]
        return None


def read_document(content: bytes) -> Document:
    """Parse a JSON object; raises `InvalidTensor` for anything else."""
    rest, arrays = _without_arrays(content)
    # Parsing holds the interpreter's lock: lists and objects take twenty times as long as text.
    if sum(map(rest.count, (b"[", b"{", b","))) > _MOST_VALUES:
        raise InputTooLarge(f"the document has more than {_MOST_VALUES} values beside its numbers")
    try:
        root = orjson.loads(rest)
    except orjson.JSONDecodeError as error:
        where = f": {error}" if not arrays else ""  # its position is that in what was left
        raise InvalidTensor(f"the document is not JSON{where}") from None
    if not isinstance(root, dict):
        raise InvalidTensor("the document is no JSON object")
    return Document(root, arrays)


def _without_arrays(content: bytes) -> tuple[bytes, list[Numbers]]:
    """The document with a mark in place of each array that has no string or object in it."""
    rest: list[bytes] = []
    arrays: list[Numbers] = []
    kept = at = 0
    for _ in range(_MOST_ARRAYS):  # each look may read the whole document
        found = _KEY.search(content, at)
        if found is None:
            break
        start = at = found.end()
        if content[max(found.start() - 1, 0) : found.start()] == b"\\":
            continue
        stop = _end_of_numbers(content, start)
        if stop:
            rest += [content[kept:start], b'{"%b":%d}' % (_MARK.encode(), len(arrays))]
            arrays.append(Numbers(content, start, stop))
            kept = at = stop
    return b"".join([*rest, content[kept:]]), arrays


def _end_of_numbers(content: bytes, start: int) -> int:
    """Behind the last `]` before a string or the end of an object; 0 where there is none."""
    ends = [end for mark in _ENDS if (end := content.find(mark, start)) >= 0]
    return content.rfind(b"]", start, min(ends, default=len(content))) + 1
