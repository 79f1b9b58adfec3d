"""Bodies: where the document ends, and the elements of BYTES."""

from __future__ import annotations

import struct
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput, InvalidTensor
from service.protocol.body import Elements, Reader, document_length, write_elements


def elements(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def test_without_the_header_the_whole_body_is_the_document() -> None:
    assert document_length(None, 7) == 7
    assert document_length("0", 7) == 0
    assert document_length("7", 7) == 7


@pytest.mark.parametrize(
    "header", ["8", "-1", "", "7.0", "0x7", "seven", "+7", " 7", "7 ", "٧", "9" * 30, "1e1"]
)
def test_a_header_that_cannot_be_true_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        document_length(header, 7)


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 9))
def test_elements_are_read_as_they_were_written(contents: list[bytes], size: int) -> None:
    body = elements(*contents)
    assert write_elements(contents) == body
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    read = Elements(pieces, len(contents), "x")
    assert (list(read), len(read)) == (contents, len(contents))
    assert list(read) == contents  # as often as one likes


@given(st.lists(st.binary(max_size=5), max_size=6), st.lists(st.integers(0, 9), max_size=9))
def test_what_is_taken_of_a_body_follows_what_was_taken(pieces: list[bytes], lengths: list[int]) -> None:
    body, left = Reader(pieces), b"".join(pieces)
    for length in lengths:
        assert b"".join(body.take(length)) == left[:length]
        left = left[length:]
        assert body.left == len(left)


def test_a_taken_piece_is_kept_by_nobody_else() -> None:
    class Piece(bytearray):
        pass

    pieces = [Piece(b"one"), Piece(b"two")]
    first, second = map(weakref.ref, pieces)
    body = Reader([memoryview(piece) for piece in pieces])
    pieces.clear()
    assert b"".join(body.take(4)) == b"onet"
    assert first() is None
    assert second() is not None


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            elements(b"a"),
            elements(b"a", b"b", b"c"),
            elements(b"a", b"b")[:-1],
            elements(b"a", b"b") + b"\0",
        ),
        *(elements(b"a") + b"\xff\xff\xff\xff", elements(b"a") + b"\xff\xff\xff\x7fabc", b"\0\0"),
    ],
)
def test_elements_that_are_not_two_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidTensor, match="element"):
        list(Elements([body], 2, "x"))
