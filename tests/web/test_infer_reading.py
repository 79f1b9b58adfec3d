"""A request to infer is read on the event loop only where nobody else waits long for that."""

from __future__ import annotations

from service.protocol.body import Reader
from service.web.routes_infer import is_read_quickly


def test_a_short_document_with_long_tensors_is_read_at_once() -> None:
    assert is_read_quickly(Reader([b"x" * 2000, *[bytes(1 << 20)] * 30]), 2000)


def test_a_long_document_is_not() -> None:
    assert not is_read_quickly(Reader([bytes(1 << 20)]), 1 << 20)


def test_nor_is_a_body_in_very_many_pieces() -> None:
    assert not is_read_quickly(Reader([b"x" * 2000, *[bytes(2048)] * 10_000]), 2000)
