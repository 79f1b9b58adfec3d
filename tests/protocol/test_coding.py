"""Codings: what the standard library compressed is read, and no more of it than allowed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InputTooLarge, InvalidInput, UnsupportedMediaType
from service.protocol.coding import deflated, inflated, of_request, of_response

if TYPE_CHECKING:
    from service.protocol.coding import Coding

MIB = 1 << 20
CODINGS: list[Coding] = ["gzip", "deflate"]


def compressed(content: bytes, coding: Coding) -> bytes:
    return gzip.compress(content) if coding == "gzip" else zlib.compress(content)


@given(st.binary(max_size=2000), st.sampled_from(CODINGS), st.integers(1, 50))
def test_what_was_compressed_is_read(content: bytes, coding: Coding, size: int) -> None:
    body = compressed(content, coding)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert b"".join(inflated(pieces, coding, 2000)) == content


@pytest.mark.parametrize("coding", CODINGS)
def test_answers_are_read_by_the_standard_library(coding: Coding) -> None:
    content = bytes(range(256)) * 500
    body = deflated(content, coding)
    assert len(body) < len(content) / 10
    assert (gzip.decompress(body) if coding == "gzip" else zlib.decompress(body)) == content


def test_a_gzip_of_several_members_is_read() -> None:
    assert b"".join(inflated([gzip.compress(b"a") + gzip.compress(b"b")], "gzip", 2)) == b"ab"


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(coding: Coding) -> None:
    content = bytes(3 * MIB)
    assert sum(map(len, inflated([compressed(content, coding)], coding, 3 * MIB))) == 3 * MIB
    with pytest.raises(InputTooLarge, match="decompressed"):
        inflated([compressed(content, coding)], coding, 3 * MIB - 1)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_takes_no_memory(coding: Coding) -> None:
    press = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join([*(press.compress(bytes(MIB)) for _ in range(600)), press.flush()])
    tracemalloc.start()
    with pytest.raises(InputTooLarge):
        inflated([bomb], coding, 4 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


def damaged(coding: Coding) -> list[bytes]:
    body = compressed(b"something worth reading" * 10, coding)
    return [body[:-1], body[:5], body[1:], body + b"x", b"{}", body[:-4] + b"abcd", body + body[:7]]


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_damaged_or_goes_on_is_refused(coding: Coding) -> None:
    for body in damaged(coding):
        with pytest.raises(InvalidInput):
            inflated([body], coding, MIB)


def test_thousands_of_empty_members_are_refused() -> None:
    with pytest.raises(InvalidInput, match="follows"):
        inflated([gzip.compress(b"") * 5000], "gzip", MIB)


def test_codings_of_requests() -> None:
    read: list[str | None] = [None, "identity", "gzip", "GZIP", " deflate "]
    assert [of_request(header) for header in read] == [None, None, "gzip", "gzip", "deflate"]
    for header in ("br", "zstd", "gzip, gzip", "x-gzip"):
        with pytest.raises(UnsupportedMediaType, match="gzip and deflate"):
            of_request(header)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        *((None, None), ("", None), ("gzip", "gzip"), ("deflate", "deflate"), ("br", None), ("*", "gzip")),
        *(("gzip, deflate, br", "gzip"), ("deflate, gzip;q=0.5", "deflate"), ("gzip;q=0", None)),
        *(("gzip;q=0, *", "deflate"), ("identity, gzip;q=0.5", None), ("GZIP;Q=1", "gzip")),
        *(("gzip;q=x", None), (",;,=", None)),
    ],
)
def test_codings_of_answers_are_those_that_clients_prefer(header: str | None, coding: str | None) -> None:
    assert of_response(header) == coding
