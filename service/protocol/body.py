"""Bodies: a JSON document and, behind it, the bytes of binary tensors, in the pieces in which they came."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidInput, InvalidTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Pieces = Sequence[bytes | memoryview]

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Says how many bytes the document has; without it the whole body is one."""

_LENGTH_DIGITS = 18
_LENGTH_BYTES = 4


def document_length(header: str | None, body_length: int) -> int:
    """The bytes of the document in a body; raises `InvalidInput` for a header that cannot be true."""
    if header is None:
        return body_length
    if not (header.isascii() and header.isdigit() and len(header) <= _LENGTH_DIGITS):
        raise InvalidInput(f"{LENGTH_HEADER} is no whole number of bytes")
    if int(header) > body_length:
        raise InvalidInput(f"{LENGTH_HEADER} is {int(header)}, but the body has {body_length} bytes")
    return int(header)


class Reader:
    """A body from its start to its end, uncopied.

    Each piece is looked at once, and afterwards kept by nobody but those who took of it.
    """

    def __init__(self, pieces: Pieces) -> None:
        # The mutable state: the pieces that nobody took yet, and how many bytes they have.
        self._pieces = deque(pieces)
        self.left = sum(map(len, self._pieces))

    def __len__(self) -> int:
        """How many pieces are left."""
        return len(self._pieces)

    def take(self, length: int) -> list[memoryview]:
        """The next `length` bytes, or all that are left where they are fewer."""
        found: list[memoryview] = []
        wanted = min(length, self.left)
        self.left -= wanted
        while wanted:
            piece = memoryview(self._pieces.popleft())
            found.append(piece[:wanted])
            if len(piece) > wanted:
                self._pieces.appendleft(piece[wanted:])
            wanted -= len(found[-1])
        return found


@dataclass(frozen=True)
class Elements:
    """The elements of a BYTES tensor, each behind its length as a little-endian uint32.

    They are read when somebody wants them, one after another, and end in `InvalidTensor` unless they
    are exactly `count`.
    """

    pieces: Pieces
    count: int
    at: str
    """What errors call the tensor."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        body = Reader(self.pieces)
        for _ in range(self.count):
            prefix = b"".join(body.take(_LENGTH_BYTES))
            length = int.from_bytes(prefix, "little")
            if len(prefix) < _LENGTH_BYTES or length > body.left:
                raise self._wrong()
            yield b"".join(body.take(length))
        if body.left:
            raise self._wrong()

    def _wrong(self) -> InvalidTensor:
        return InvalidTensor(f"{self.at} does not hold exactly {self.count} elements")


def write_elements(elements: Sequence[bytes]) -> bytes:
    """The bytes of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)
