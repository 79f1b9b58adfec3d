"""Bombs: a small body that would become a large one takes no more memory than its limits say."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from .digits import BOUNDARY, JSON, MULTIPART, Digits, assert_serves, encoded, npy
from .infer import INFER, binary, body, tensor
from .server import NPY, Server
from .tree import Tree
from .wire import PREDICT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

MAX_BODY_MB = 8
MAX_PIXELS = 4_000_000
MOST_GROWTH = 40e6
"""Bytes: a body of 8 MiB once inflated and once cut apart, and an image of 4 million pixels in colour."""
HUGE = 256 << 20
PNG = encoded(np.zeros((1, 8, 8), np.uint8))
JPEG = encoded(np.zeros((1, 8, 8), np.uint8), "JPEG")
ONE = tensor(np.zeros((1, 1, 8, 8), np.float32))


class Bomb(NamedTuple):
    """A request whose body is small; what it would become is not."""

    media_type: str
    content: bytes
    status: int
    address: str = PREDICT
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(*more: bytes, width: int = 8, height: int = 8, pixels: bytes = b"", colour: int = 0) -> Bomb:
    """Its header, `more` chunks, and the compressed `pixels`."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels or zlib.compress(bytes(8 * 9)))]
    content = b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])
    return Bomb("image/png", content, 200)


def jpeg(width: int, height: int) -> Bomb:
    """Of one black block, said to be of this size."""
    start = JPEG.index(b"\xff\xc0") + 5
    content = JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]
    return Bomb("image/jpeg", content, 413)


def scans(count: int) -> bytes:
    start = JPEG.index(b"\xff\xda")
    return JPEG[:start] + JPEG[start:-2] * count + JPEG[-2:]


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", bytes(HUGE))
    return file.getvalue()


def form(part: bytes, count: int, tail: bytes = b"") -> Bomb:
    return Bomb(MULTIPART, part * count + tail + f"--{BOUNDARY}--\r\n".encode(), 413)


def infer(given: tuple[bytes, dict[str, str]], status: int = 400) -> Bomb:
    content, headers = given
    return Bomb(headers["Content-Type"], content, status, INFER, headers)


def coded(content: bytes, coding: str) -> Bomb:
    return Bomb(JSON, content, 413, INFER, {"Content-Encoding": coding})


ZEROS = zlib.compress(bytes(HUGE), 9)
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n'.encode()
SHAPE = npy(np.zeros((1, 1, 8, 8), np.float32))
BOMBS: dict[str, Bomb] = {
    "gzip": coded(gzip.compress(bytes(HUGE), 9), "gzip"),
    "deflate": coded(ZEROS, "deflate"),
    "gzip of many members": coded(gzip.compress(bytes(1 << 20), 9) * 900, "gzip"),
    "gzip of members of nothing": coded(gzip.compress(b"") * 5000, "gzip")._replace(status=400),
    "PNG of 10 billion pixels": png(width=100_000, height=100_000)._replace(status=413),
    "PNG of the largest size": png(width=2**31 - 1, height=2**31 - 1)._replace(status=413),
    "PNG of one long line": png(width=2**31 - 1, height=1)._replace(status=413),
    "PNG whose pixels are more than its size": png(pixels=ZEROS),
    "PNG in colour at the limit": png(
        width=2000, height=2000, colour=6, pixels=zlib.compress(bytes(2000 * 8001), 9)
    ),
    "PNG with compressed text": png(chunk(b"zTXt", b"a\0\0" + ZEROS)),
    "PNG with international text": png(chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS)),
    "PNG with a profile": png(chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "PNG with a thousand texts": png(*[chunk(b"zTXt", b"a\0\0" + ZEROS[:100])] * 1000),
    "PNG with a million frames": png(
        chunk(b"acTL", struct.pack(">II", 1_000_000, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 1, 0, 0)),
    ),
    "PNG with a million empty chunks": png(*[chunk(b"IDAT", b"")] * 100_000)._replace(status=400),
    "JPEG of the largest size": jpeg(65_500, 65_500),
    "JPEG of one long line": jpeg(65_500, 100),
    "JPEG of 3,000 scans": Bomb("image/jpeg", scans(3000), 400),
    "npy of 2**60 rows": Bomb(NPY, SHAPE.replace(b"(1, 1, 8, 8)", b"(%d,1,8,8)" % 2**60), 413),
    "npy with a header of 4 GiB": Bomb(NPY, b"\x93NUMPY\2\0\xff\xff\xff\xff{", 400),
    "npz": Bomb(NPY, zipped(), 400),
    "JSON of lists": Bomb(JSON, b'{"inputs": [' + b"[]," * 1_000_000 + b"[]]}", 413),
    "JSON of depth": Bomb(JSON, b'{"inputs": ' + b"[" * 2_000_000, 413),
    "JSON of keys": Bomb(JSON, b'{"inputs": [' + b'{"a":1},' * 500_000 + b"{}]}", 413),
    "JSON of one long number": Bomb(JSON, b'{"inputs": [' + b"1" * 4_000_000 + b"]}", 400),
    "form of empty files": form(PART, 20_000),
    "form of one long header": form(PART.replace(b"\r\n\r\n", b"; x=" + b"x" * 4_000_000), 1)._replace(
        status=400
    ),
    "shape of two billion": infer(body(ONE | {"shape": [2**31 - 1, 1, 1, 1]})),
    "shape of rows": infer(body(ONE | {"shape": [2**24, 1, 8, 8]}), 413),
    "a billion images": infer(
        body({"name": "image", "shape": [10**9], "datatype": "BYTES", "data": []}), 413
    ),
    "an element of 4 GiB": infer(body(binary(b"\xff" * 8, [1], "BYTES"), tail=b"\xff" * 8)),
}


@pytest.fixture(scope="module")
def server(digits: Digits) -> Iterator[Server]:
    limits: dict[str, Any] = {"max_body_mb": MAX_BODY_MB, "max_pixels": MAX_PIXELS}
    with Server.start(workers=1, drift="off", **limits) as started:
        for bomb in (png(), Bomb(JSON, body(ONE)[0], 200, INFER)):  # what every first request takes stays
            assert sent(started, bomb) == 200
        assert_serves(started, digits)
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def sent(server: Server, bomb: Bomb) -> int:
    headers = {"Content-Type": bomb.media_type} | bomb.headers
    return server.http.post(bomb.address, content=bomb.content, headers=headers).status_code


def test_what_is_let_through_at_the_limit_takes_memory_that_is_seen(server: Server) -> None:
    """So that the test below can fail; before it, since the process keeps what it once took."""
    tree = Tree(server.process.pid)
    before = tree.resident_bytes()
    tree.forget_peaks()
    assert sent(server, BOMBS["PNG in colour at the limit"]) == 200
    peaks = tree.peak_bytes()
    assert max(peaks[pid] - before[pid] for pid in before) > 4e6


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_answered_within_its_limits(server: Server, digits: Digits, name: str) -> None:
    bomb, tree = BOMBS[name], Tree(server.process.pid)
    assert len(bomb.content) < MAX_BODY_MB << 20
    before = tree.resident_bytes()
    tree.forget_peaks()
    assert sent(server, bomb) == bomb.status
    peaks = tree.peak_bytes()
    assert set(peaks) == set(before), "a process was replaced"
    grown = {pid: peaks[pid] - before[pid] for pid in before}
    assert max(grown.values()) < MOST_GROWTH, grown
    assert_serves(server, digits)
