"""Content codings: gzip and deflate, inflated to a limit and no further."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Literal

from service.errors import InputTooLarge, InvalidInput, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Coding = Literal["gzip", "deflate"]

# What zlib calls the formats: gzip's own, and zlib's, which HTTP calls deflate (RFC 9110, section 8.4.1.2).
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_PIECE_BYTES = 1 << 20
_MOST_MEMBERS = 1000
# Answers are mostly numbers, of which higher levels make hardly less.
_LEVEL = 1


def of_request(header: str | None) -> Coding | None:
    """The coding of a body; raises `UnsupportedMediaType` for any other than these two."""
    coding = (header or "identity").strip().lower()
    if coding == "identity":
        return None
    if coding not in _WINDOW_BITS:
        raise UnsupportedMediaType(f"content coding {coding[:64]!r} is not read; gzip and deflate are")
    return "gzip" if coding == "gzip" else "deflate"


def of_response(header: str | None) -> Coding | None:
    """The coding that an Accept-Encoding asks for: gzip, where both are as welcome; None for none."""
    if not header:
        return None
    wanted = dict(map(_weighed, header.lower().split(",")))
    weights = {coding: wanted.get(coding, wanted.get("*", 0.0)) for coding in _WINDOW_BITS}
    if max(weights.values()) <= wanted.get("identity", 0.0):
        return None
    return "gzip" if weights["gzip"] >= weights["deflate"] else "deflate"


def inflated(pieces: Sequence[bytes], coding: Coding, max_bytes: int) -> list[bytes]:
    """The body that was compressed, in pieces.

    Raises `InputTooLarge` at the first byte beyond `max_bytes`, `InvalidInput` for damage.
    """
    found: list[bytes] = []
    length = 0
    try:
        for piece in _inflating(pieces, coding):
            length += len(piece)
            if length > max_bytes:
                raise InputTooLarge(f"the body is larger than {max_bytes} bytes once it is decompressed")
            found.append(piece)
    except zlib.error:
        raise InvalidInput(f"the body is not {coding}, or damaged") from None
    return found


def deflated(content: bytes, coding: Coding) -> bytes:
    """`content` compressed."""
    return gzip.compress(content, _LEVEL, mtime=0) if coding == "gzip" else zlib.compress(content, _LEVEL)


def _inflating(pieces: Sequence[bytes], coding: Coding) -> Iterator[bytes]:
    stream, members = zlib.decompressobj(_WINDOW_BITS[coding]), 1
    for piece in pieces:
        left = piece
        while left:
            if stream.eof:  # a gzip may hold several, one behind another
                stream, members = zlib.decompressobj(_WINDOW_BITS[coding]), members + 1
                if coding != "gzip" or members > _MOST_MEMBERS:
                    raise InvalidInput(f"something follows the {coding} body")
            inflated_piece = stream.decompress(left, _PIECE_BYTES)
            if inflated_piece:
                yield inflated_piece
            left = stream.unused_data if stream.eof else stream.unconsumed_tail
    yield from _rest(stream)
    if not stream.eof:
        raise InvalidInput(f"the {coding} body stops before its end")


def _rest(stream: zlib._Decompress) -> Iterator[bytes]:
    """What zlib holds back once it has read everything."""
    while not stream.eof and (piece := stream.decompress(b"", _PIECE_BYTES)):
        yield piece


def _weighed(item: str) -> tuple[str, float]:
    coding, _, parameter = item.partition(";")
    name, _, weight = parameter.strip().partition("=")
    try:
        return coding.strip(), float(weight) if name.strip() == "q" else 1.0
    except ValueError:
        return coding.strip(), 0.0
