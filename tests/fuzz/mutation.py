"""Mutations: what is sent in place of an honest file, chosen by a generator of random numbers."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_LONGEST = 1 << 16
_NUMBERS = [0, 1, -1, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
_TEXTS = [
    *(
        b"0",
        b"-1",
        b"1e999",
        b"-0.0",
        b"NaN",
        b"9" * 40,
        b"1.5",
        b"true",
        b"null",
        b'"',
        b"\\u0000",
        b"\\ud800",
    ),
    *(b"[", b"]", b"{", b"}", b",", b":", b"()", b"..", b"/", b"%00", b"%", b"&", b"=", b";", b"\r\n", b"\n"),
    *(
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xf0\x9f\x98\x80",
        b"\xed\xa0\x80",
        b"\x1b",
        b" ",
        b"'",
        b"utf-16",
        b"utf-7",
    ),
]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutated(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`content` after one to eight changes; `others` are files of the same kind to take pieces from."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        change: Callable[[bytes, random.Random], bytes] = chance.choice(_CHANGES)
        content = change(content, chance) if chance.random() < 0.9 else _spliced(content, others, chance)
    return content[:_LONGEST]


def _place(content: bytes, chance: random.Random) -> tuple[int, int]:
    """Anywhere, and a little behind that."""
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((0, 1, 1, 2, 4, 8, 16, 64, 1024)))


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _removed(content: bytes, chance: random.Random) -> bytes:
    start, end = _place(content, chance)
    return content[:start] + content[end:]


def _doubled(content: bytes, chance: random.Random) -> bytes:
    start, end = _place(content, chance)
    return content[:end] + content[start:end] * chance.choice((1, 1, 2, 100)) + content[end:]


def _told(content: bytes, chance: random.Random) -> bytes:
    start, end = _place(content, chance)
    return content[:start] + chance.choice(_TEXTS) + content[chance.choice((start, end)) :]


def _numbered(content: bytes, chance: random.Random) -> bytes:
    """A binary number in place of what stands there."""
    width, order = chance.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8))), chance.choice("<>")
    number = chance.choice(_NUMBERS) % (1 << 8 * width[1])
    start = chance.randrange(len(content) + 1)
    return content[:start] + struct.pack(order + width[0], number) + content[start + width[1] :]


def _counted(content: bytes, chance: random.Random) -> bytes:
    """A written number in place of one that stands there."""
    found = list(_NUMBER.finditer(content[:4096]))
    if not found:
        return content
    chosen = chance.choice(found)
    number = chance.choice((str(chance.choice(_NUMBERS)), "1e400", "0.1", "1" * 5000, "01", "0x1")).encode()
    return content[: chosen.start()] + number + content[chosen.end() :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _spliced(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return content[: _place(content, chance)[0]] + other[_place(other, chance)[0] :]


_CHANGES = (_flipped, _flipped, _removed, _doubled, _told, _numbered, _counted, _cut)
