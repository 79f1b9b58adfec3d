"""The archive of a program is read only where its bytes can be understood in one way."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from service.errors import InvalidProgram
from service.store import archive

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = {"a/first": b"1" * 100, "a/second": b"", "a/third": b"3" * 10}


def zipped(method: int = zipfile.ZIP_STORED, entries: dict[str, bytes] = ENTRIES) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive_file:
        for name, content in entries.items():
            archive_file.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return bytearray(file.getvalue())


def by_torch(entries: dict[str, bytes] = ENTRIES) -> bytes:
    """The entries as torch's own writer lays them out; it adds some of its own."""
    file = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(file)
    for name, content in entries.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return file.getvalue()


def why_not(content: bytes | bytearray) -> str:
    with pytest.raises(InvalidProgram) as caught:
        archive.read(bytes(content))
    return str(caught.value)


def as_bytes(entries: dict[str, memoryview]) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in entries.items()}


def test_what_python_writes_is_read() -> None:
    assert as_bytes(archive.read(bytes(zipped()))) == ENTRIES


def test_what_torch_writes_is_read() -> None:
    read = as_bytes(archive.read(by_torch()))
    assert {name.partition("/")[2]: content for name, content in read.items()}.items() >= ENTRIES.items()


def test_what_is_written_is_read_and_written_again_to_the_same_bytes() -> None:
    content = archive.write(ENTRIES)
    assert as_bytes(archive.read(content)) == ENTRIES
    assert archive.write(archive.read(content)) == content


def test_a_written_archive_is_one_to_others_too() -> None:
    with zipfile.ZipFile(io.BytesIO(archive.write(ENTRIES))) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == ENTRIES


def test_a_compressed_entry_is_refused_so_that_nothing_can_swell() -> None:
    bomb = zipped(zipfile.ZIP_DEFLATED, {"a/b": b"\0" * 10_000_000})
    assert len(bomb) < 20_000
    assert why_not(bomb) == "entry 'a/b' is compressed"


@pytest.mark.parametrize("length", range(0, len(zipped()), 7))
def test_an_archive_that_is_cut_off_is_refused(length: int) -> None:
    assert why_not(zipped()[:length])


def test_an_archive_of_torch_that_is_cut_off_is_refused() -> None:
    content = by_torch()
    for length in range(0, len(content), 13):
        assert why_not(content[:length])


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../b", "/etc/passwd", "a//b", "a/.", "a/", "a\\b", "a/\0", "a/\n", "", "a/" * 300 + "b", "."],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    content = zipped(entries={"x" * len(name): b"1"}) if name else zipped(entries={"": b"1"})
    changed = bytes(content).replace(b"x" * len(name), name.encode()) if name else bytes(content)
    assert "entry" in why_not(changed)


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    assert "UTF-8" in why_not(bytes(zipped(entries={"xxxx": b"1"})).replace(b"xxxx", b"\xff\xfe\xfd\xfc"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused() -> None:
    content = bytes(zipped(entries={"a/x": b"1", "a/y": b"2"})).replace(b"a/y", b"a/x")
    assert why_not(content) == "entry 'a/x' is there twice"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO])
def test_a_link_or_a_folder_is_refused(kind: int) -> None:
    entry = zipfile.ZipInfo("a/b")
    entry.external_attr = (kind | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr(entry, b"/etc/passwd")
    assert why_not(file.getvalue()) == "entry 'a/b' is a link or a folder, not a file"


def directory(content: bytes | bytearray) -> int:
    """Where the directory begins."""
    return int(struct.unpack_from("<L", content, len(content) - 6)[0])


def changed_at(offset: Callable[[bytearray], int], value: bytes) -> bytearray:
    content = zipped()
    start = offset(content)
    content[start : start + len(value)] = value
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#!/bin/sh\n" + zipped(), "no archive"),
        (zipped() + b"\0", "does not end"),
        (zipped() + zipped(), "not where its end says"),
        (changed_at(lambda c: len(c) - 2, b"\1\0"), "does not end"),  # a comment
        (changed_at(lambda c: len(c) - 18, b"\1\0"), "does not end"),  # on another disk
        (
            changed_at(lambda c: len(c) - 14, b"\2\0\2\0"),
            "more than its end says",
        ),  # fewer entries than there are
        (changed_at(lambda c: len(c) - 12, b"\2\0"), "does not end"),
        (changed_at(lambda c: len(c) - 6, b"\0\0\0\0"), "not where its end says"),
        (changed_at(lambda c: directory(c) + 8, b"\1\0"), "not as torch"),  # encrypted
        (changed_at(lambda c: directory(c) + 10, b"\x08\0"), "compressed"),
        (changed_at(lambda c: directory(c) + 16, b"\0\0\0\0"), "checksum"),
        (changed_at(lambda c: directory(c) + 20, b"\1\0\0\0"), "compressed"),
        (changed_at(lambda c: directory(c) + 20, b"\x01\0\0\0\x01\0\0\0"), "two ways"),
        (changed_at(lambda c: directory(c) + 20, b"\xff\xff\xff\xff\xff\xff\xff\xff"), "two ways"),
        (changed_at(lambda c: directory(c) + 30, b"\1\0"), "not as torch"),  # an extra field
        (changed_at(lambda c: directory(c) + 34, b"\1\0"), "not as torch"),  # on another disk
        (changed_at(lambda c: directory(c) + 42, b"\x10\0\0\0"), "overlaps"),
        (changed_at(lambda _: 30, b"a/FIRST"), "another name"),
        (changed_at(lambda _: 8, b"\x08\0"), "two ways"),  # compressed, says the entry itself
        (changed_at(lambda _: 22, b"\x09\0\0\0"), "two ways"),
        (changed_at(lambda _: 40, b"?"), "checksum"),
    ],
)
def test_what_could_be_understood_in_two_ways_is_refused(content: bytes | bytearray, reason: str) -> None:
    assert reason in why_not(content)


def test_bytes_between_two_entries_are_refused() -> None:
    content = zipped(entries={"a/b": b"1"})
    start = directory(content)
    hidden = content[:start] + b"HIDDEN!" + content[start:]
    struct.pack_into("<L", hidden, len(hidden) - 6, start + 7)
    assert why_not(hidden) == "the archive holds bytes that belong to no entry"


def test_two_entries_over_the_same_bytes_are_refused() -> None:
    content = zipped(entries={"a/b": b"1", "a/c": b"1"})
    second = directory(content) + 46 + 3
    struct.pack_into("<L", content, second + 42, 0)
    assert "overlaps another" in why_not(content)


def test_the_long_end_must_say_what_the_short_one_says() -> None:
    content = bytearray(by_torch())
    assert archive.read(bytes(content))
    struct.pack_into("<Q", content, len(content) - 22 - 20 - 56 + 32, 1)
    assert "two ends that differ" in why_not(content)
