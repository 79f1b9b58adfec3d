"""Cuts everything off shared libraries that no loader reads: debug symbols above all.

A loader reads what the program headers name. What lies behind the last of that is for linkers and debuggers;
binutils' strip keeps some of it, and is not in every base image.

usage: python3 strip_symbols.py FILE...
"""

import struct
import sys
from pathlib import Path

ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"


def loaded(library: bytes) -> int:
    """Where the last byte ends that a program header names."""
    (table,) = struct.unpack_from("<Q", library, 32)
    entry_size, entries = struct.unpack_from("<HH", library, 54)
    headers = (struct.unpack_from("<8xQ16xQ", library, table + i * entry_size) for i in range(entries))
    return max(table + entry_size * entries, *(offset + size for offset, size in headers))


def stripped(library: bytes) -> bytes:
    """The library without its section headers and without what only these name."""
    kept = bytearray(library[: loaded(library)])
    kept[40:48] = bytes(8)  # where section headers are
    kept[60:64] = bytes(4)  # how many, and which of them holds their names
    return bytes(kept)


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        library = path.read_bytes()
        if library.startswith(ELF64_LITTLE_ENDIAN):
            path.write_bytes(stripped(library))


main()
