"""The zip archive of an exported program, read strictly and by our own code; no torch.

`torch.export.save` writes the simplest of zip files: entries one behind the other, nothing compressed,
nothing encrypted, a directory at the end. Only that is read, so that the bytes of an entry are never in
doubt, and nothing can be larger than the file itself. (Layout: PKWARE's APPNOTE, sections 4.3.7, 4.3.12,
4.3.14 to 4.3.16.)
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidProgram

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_ENTRIES = 100_000
_LONGEST_NAME = 512
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FLAGS = {0, 0x8, 0x800, 0x808}  # a descriptor behind the bytes; a name in UTF-8
_DESCRIPTORS = {0, 12, 16, 20, 24}  # the bytes that may stand between two entries


@dataclass(frozen=True)
class _Entry:
    name: str
    flags: int
    checksum: int
    size: int
    offset: int
    """Of its local header."""


def read(content: bytes) -> dict[str, memoryview]:
    """The bytes of every entry by its whole name, in the order of the file.

    Raises `InvalidProgram` for anything but a plain, uncompressed, undamaged archive.
    """
    view = memoryview(content)
    found, end = {}, 0
    directory = _directory_start(view)
    for entry in _entries(view, directory):
        start = _payload_start(view, entry, end)
        end = start + entry.size
        if end > directory:
            raise InvalidProgram(f"entry {entry.name!r} is longer than the archive")
        if entry.name in found:
            raise InvalidProgram(f"entry {entry.name!r} is there twice")
        found[entry.name] = view[start:end]
        if zlib.crc32(found[entry.name]) != entry.checksum:
            raise InvalidProgram(f"entry {entry.name!r} is damaged: its checksum differs")
    if directory - end not in _DESCRIPTORS:
        raise InvalidProgram("the archive holds bytes that belong to no entry")
    return found


def write(entries: Mapping[str, bytes | memoryview]) -> bytes:
    """An archive of these entries, which `read` gives back; the same bytes for the same entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), bytes(content))
    return buffer.getvalue()


def _directory_start(view: memoryview) -> int:
    """Where the directory begins; it must end where the closing records begin, and they at the file's end."""
    if len(view) < _END.size or bytes(view[:4]) != b"PK\x03\x04":
        raise InvalidProgram("it is no archive of torch.export.save")
    mark, *disks, here, entries, size, start, comment = _END.unpack(view[-_END.size :])
    if mark != b"PK\x05\x06" or comment or any(disks) or here != entries:
        raise InvalidProgram("the archive does not end as one of torch.export.save does")
    records = len(view) - _END.size
    if bytes(view[records - _LOCATOR.size :][:4]) == b"PK\x06\x07":
        records = _agreeing_record(view, records - _LOCATOR.size, (entries, size, start))
    if start + size != records or entries > _MOST_ENTRIES:
        raise InvalidProgram("the archive's directory is not where its end says")
    return int(start)


def _agreeing_record(view: memoryview, locator: int, expected: tuple[int, int, int]) -> int:
    """Where the long form of the end, which torch writes too, begins; it must say what the short one says."""
    start = locator - _END_64.size
    if start < 0:
        raise InvalidProgram("the archive is cut off")
    _, disk, offset, disks = _LOCATOR.unpack_from(view, locator)
    mark, length, _, _, *fields = _END_64.unpack_from(view, start)
    plain = (b"PK\x06\x06", _END_64.size - 12, [0, 0, expected[0], *expected])
    if (mark, length, fields) != plain or (disk, offset, disks) != (0, start, 1):
        raise InvalidProgram("the archive has two ends that differ, or is larger than 4 GiB")
    return start


def _entries(view: memoryview, position: int) -> Iterator[_Entry]:
    """What the directory says, entry by entry."""
    count = _END.unpack(view[-_END.size :])[3]
    for _ in range(count):
        try:
            fields = _ENTRY.unpack_from(view, position)
        except struct.error:
            raise InvalidProgram("the archive's directory is cut off") from None
        mark, _, _, flags, method, _, _, checksum, packed, size, length, extra, comment = fields[:13]
        disk, _, attributes, offset = fields[13:]
        raw = bytes(view[position + _ENTRY.size :][:length])
        name = _name(raw)
        if mark != b"PK\x01\x02" or flags not in _FLAGS or extra or comment or disk:
            raise InvalidProgram(f"entry {name!r} is not as torch.export.save writes it")
        if method or packed != size:
            raise InvalidProgram(f"entry {name!r} is compressed")
        if (attributes >> 16) & 0o170000 not in (0, 0o100000):
            raise InvalidProgram(f"entry {name!r} is a link or a folder, not a file")
        yield _Entry(name, flags, checksum, size, offset)
        position += _ENTRY.size + length
    if bytes(view[position:][:4]) not in (b"PK\x05\x06", b"PK\x06\x06"):
        raise InvalidProgram("the archive's directory holds more than its end says")


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidProgram("the archive holds an entry whose name is not UTF-8") from None
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or len(name) > _LONGEST_NAME:
        raise InvalidProgram(f"the archive holds an entry with the name {name[:80]!r}")
    if any(part in {"", ".", ".."} for part in parts):
        raise InvalidProgram(f"entry {name!r} leads out of the archive")
    return name


def _payload_start(view: memoryview, entry: _Entry, end: int) -> int:
    """Where the bytes of an entry begin: behind its own header, which stands behind the entry before it."""
    if entry.offset - end not in _DESCRIPTORS or (end == 0 and entry.offset):
        raise InvalidProgram(f"entry {entry.name!r} overlaps another, or bytes before it belong to no entry")
    try:
        mark, _, flags, method, _, _, _, _, size, length, extra = _LOCAL.unpack_from(view, entry.offset)
    except struct.error:
        raise InvalidProgram("the archive is cut off") from None
    start = entry.offset + _LOCAL.size
    if bytes(view[start : start + length]) != entry.name.encode():
        raise InvalidProgram(f"entry {entry.name!r} has another name before its bytes")
    sizes = {0, entry.size} if entry.flags & 0x8 else {entry.size}
    if (mark, flags, method) != (b"PK\x03\x04", entry.flags, 0) or size not in sizes:
        raise InvalidProgram(f"entry {entry.name!r} is described in two ways")
    return int(start + length + extra)
