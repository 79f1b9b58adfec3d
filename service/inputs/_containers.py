"""The outsides of an encoded image: its size and orientation, read without decoding a pixel.

What reaches the decoder is a copy that keeps only what pixels need. Text, colour profiles, EXIF,
thumbnails, animation frames and everything after the image's end are left out, so that none of
them can inflate, warn or mislead; and the size seen here is the size that will be decoded.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from service.errors import InvalidImage

if TYPE_CHECKING:
    from collections.abc import Iterator

_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

# Neither a stuffed 0, nor fill, nor a restart marker: so it also finds the next one after a scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITHOUT_LENGTH = {0x01, 0xD8, 0xD9}
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LEFT_OUT = set(range(0xE1, 0xF0)) - {0xEE} | {0xFE}  # not APP0 and APP14, which decide the colours

# Real files stay far below. Each scan costs a pass over the whole image and only a few bytes.
_MOST_SEGMENTS = 4096
_MOST_SCANS = 64
_MOST_CHUNKS = 65536


class Container(NamedTuple):
    """An encoded image whose size is known and whose pixels are not."""

    kind: Literal["JPEG", "PNG"]
    width: int
    height: int
    orientation: int
    """EXIF's 1..8; 1 where the file does not say."""
    stream: bytes
    """The same image without anything that its pixels do not need."""


def read_container(content: bytes) -> Container:
    """What a JPEG or PNG says of itself; raises `InvalidImage` for damage and for any other format."""
    if content.startswith(_JPEG_MAGIC):
        return _read_jpeg(content)
    if content.startswith(_PNG_MAGIC):
        return _read_png(content)
    raise InvalidImage("the image is neither JPEG nor PNG" if content else "the image is empty")


def _read_jpeg(content: bytes) -> Container:
    segments = list(_segments(content))
    frames = [start for marker, start, _ in segments if marker in _FRAMES]
    scans = [start for marker, start, _ in segments if marker == _SOS]
    if len(frames) != 1 or not scans or frames[0] > scans[0]:
        raise InvalidImage("the JPEG is corrupt: it does not hold exactly one image")
    if len(scans) > _MOST_SCANS:
        raise InvalidImage(f"the JPEG has {len(scans)} scans, at most {_MOST_SCANS} are read")
    header = [
        content[start:end] for marker, start, end in segments if start < scans[0] and marker not in _LEFT_OUT
    ]
    stream = b"".join([b"\xff\xd8", *header, content[scans[0] : segments[-1][2]]])
    height, width = struct.unpack_from(">HH", content, frames[0] + 5)
    exif = (content[start + 4 : end] for marker, start, end in segments if marker == _APP1)
    tiff = next((body[6:] for body in exif if body.startswith(b"Exif\0\0")), b"")
    return Container("JPEG", width, height, _orientation(tiff), stream)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of every segment up to the end of the image."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(content, position)
        if found is None:
            raise InvalidImage("the JPEG is truncated: it stops before its end-of-image marker")
        marker, position = content[found.end() - 1], found.end()
        if marker not in _WITHOUT_LENGTH:
            position += _segment_length(content, position)
        yield marker, found.start(), position
        if marker == _EOI:
            return
    raise InvalidImage(f"the JPEG has more than {_MOST_SEGMENTS} segments")


def _segment_length(content: bytes, position: int) -> int:
    length = int.from_bytes(content[position : position + 2], "big")
    if position + max(length, 2) > len(content):
        raise InvalidImage("the JPEG is truncated: it stops inside a segment")
    if length < 2:
        raise InvalidImage("the JPEG is corrupt: a segment has an impossible length")
    return length


def _read_png(content: bytes) -> Container:
    kept, kinds, orientation = [_PNG_MAGIC], [], 1
    for kind, start, end in _chunks(content):
        kinds.append(kind)
        if kind == b"eXIf":
            orientation = _orientation(content[start + 8 : end - 4])
        elif not kind[0] & 0x20:  # a capital: needed to understand the image
            kept.append(_checked(kind, content[start:end]))
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1 or len(kept[1]) != 25:
        raise InvalidImage("the PNG is corrupt: it does not start with its one header")
    if b"IDAT" not in kinds or (content[25] == 3 and b"PLTE" not in kinds):
        raise InvalidImage("the PNG is corrupt: its image data or its palette is missing")
    width, height = struct.unpack_from(">II", content, 16)
    return Container("PNG", width, height, orientation, b"".join(kept))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of every chunk up to the end of the image."""
    start = len(_PNG_MAGIC)
    for _ in range(_MOST_CHUNKS):
        length, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        end = start + 12 + length
        if end > len(content):
            raise InvalidImage("the PNG is truncated: it stops before its IEND chunk")
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise InvalidImage(f"the PNG has more than {_MOST_CHUNKS} chunks")


def _checked(kind: bytes, chunk: bytes) -> bytes:
    if kind not in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}:
        raise InvalidImage("the PNG holds a critical chunk of an unknown type")
    if zlib.crc32(memoryview(chunk)[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise InvalidImage(f"the PNG is corrupt: the checksum of its {kind.decode()} chunk is wrong")
    return chunk


def _orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory (EXIF 2.3, section 4.6.4); 1 where it is absent or damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:  # also where `order` is None
        pass
    return 1
