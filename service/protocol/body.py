"""Bodies: a JSON document and, behind it, the bytes of binary tensors, in the pieces in which they came."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from service.errors import InvalidInput, InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    Pieces = Sequence[bytes | memoryview]

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Says how many bytes the document has; without it the whole body is one."""

_LENGTH_DIGITS = 18


def document_length(header: str | None, body_length: int) -> int:
    """The bytes of the document in a body; raises `InvalidInput` for a header that cannot be true."""
    if header is None:
        return body_length
    if not (header.isascii() and header.isdigit() and len(header) <= _LENGTH_DIGITS):
        raise InvalidInput(f"{LENGTH_HEADER} is no whole number of bytes")
    if int(header) > body_length:
        raise InvalidInput(f"{LENGTH_HEADER} is {int(header)}, but the body has {body_length} bytes")
    return int(header)


def cut(pieces: Pieces, start: int, stop: int) -> list[memoryview]:
    """The bytes from `start` to `stop`, uncopied."""
    found: list[memoryview] = []
    for piece in pieces:
        part = memoryview(piece)[max(start, 0) : max(stop, 0)]
        if part:
            found.append(part)
        start, stop = start - len(piece), stop - len(piece)
    return found


def read_elements(pieces: Pieces, count: int, at: str) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length as a little-endian uint32.

    Raises `InvalidTensor` unless they are exactly `count`.
    """
    content, position = b"".join(pieces), 0
    elements: list[bytes] = []
    while position < len(content) and len(elements) < count:
        start = position + 4
        length = int.from_bytes(content[position:start], "little")
        position = start + length
        elements.append(content[start:position])
    if len(elements) != count or position != len(content):
        raise InvalidTensor(f"{at} does not hold exactly {count} elements")
    return elements


def write_elements(elements: Sequence[bytes]) -> bytes:
    """The bytes of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)
