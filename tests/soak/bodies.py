"""Right requests, with the digits that are in them, and wrong ones, with what they deserve."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

PREDICT = "/v1/models/digits/predict"
MAX_BODY_MB = 2
_FILES = sorted((Path(__file__).parents[1] / "digits").glob("*.png"))
_LABELS = [int(file.name.partition("_")[0]) for file in _FILES]
_PIXELS = np.stack([np.asarray(Image.open(file).convert("L"))[None] for file in _FILES])
_MEAN, _STD = 0.3048, 0.3754  # what the shipped manifest says
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Request:
    """One request: its bytes, and what the answer must be."""

    name: str
    content: bytes
    statuses: frozenset[int]
    digits: tuple[int, ...] = ()
    """Of a 200: what is in the rows, in their order."""
    may_close: bool = False
    """Whether the server may close instead of answering, or behind its answer."""


def request(
    name: str,
    body: bytes,
    media_type: str,
    statuses: Sequence[int] = (200,),
    *,
    query: str = "",
    digits: Sequence[int] = (),
    head: Sequence[str] = (),
    address: str = PREDICT,
    method: str = "POST",
) -> Request:
    """A request with its length; 429 is an answer that anybody may get."""
    lines = [f"{method} {address}{query} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}", *head]
    if not any("Transfer-Encoding" in line or "Content-Length" in line for line in head):
        lines.append(f"Content-Length: {len(body)}")
    content = "\r\n".join([*lines, "", ""]).encode() + body
    return Request(name, content, frozenset({*statuses, 429}), tuple(digits))


def good(chance: random.Random) -> Request:
    """One of all forms that a right request may have."""
    return chance.choice((_image, _jpeg, _several_images, _tensor, _pixels, _array, _json))(chance)


def bad(chance: random.Random) -> Request:
    """One of the requests that are answered with an error, and disturb nobody."""
    return chance.choice(_BAD)()


def many_rows(chance: random.Random) -> Request:
    """A right request with an answer that does not fit into one packet."""
    rows = _rows(chance, 200)
    body, digits = _PIXELS[rows].tobytes(), [_LABELS[row] for row in rows]
    return request("many rows", body, _OCTETS, query="?dtype=uint8&output=logits&top_k=10", digits=digits)


def _rows(chance: random.Random, most: int = 8) -> list[int]:
    return chance.choices(range(len(_FILES)), k=chance.randint(1, most))


def _image(chance: random.Random) -> Request:
    (row,) = _rows(chance, 1)
    return request("png", _FILES[row].read_bytes(), "image/png", digits=[_LABELS[row]])


def _jpeg(chance: random.Random) -> Request:
    (row,) = _rows(chance, 1)
    content = io.BytesIO()
    Image.fromarray(_PIXELS[row, 0]).resize((64, 64)).save(content, "JPEG", quality=95)
    return request("jpeg", content.getvalue(), "image/jpeg", digits=[_LABELS[row]])


def _several_images(chance: random.Random) -> Request:
    rows, mark = _rows(chance), "a-boundary-that-no-image-holds"
    part = f'--{mark}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'.encode()
    body = b"".join(part + _FILES[row].read_bytes() + b"\r\n" for row in rows) + f"--{mark}--\r\n".encode()
    digits = [_LABELS[row] for row in rows]
    return request("multipart", body, f"multipart/form-data; boundary={mark}", digits=digits)


def _inputs(rows: list[int]) -> np.ndarray:
    return ((_PIXELS[rows] / 255 - _MEAN) / _STD).astype("<f4")


def _tensor(chance: random.Random) -> Request:
    rows = _rows(chance)
    digits = [_LABELS[row] for row in rows]
    return request("float32", _inputs(rows).tobytes(), _OCTETS, query="?dtype=float32", digits=digits)


def _pixels(chance: random.Random) -> Request:
    rows = _rows(chance)
    digits = [_LABELS[row] for row in rows]
    return request("uint8", _PIXELS[rows].tobytes(), _OCTETS, query="?dtype=uint8", digits=digits)


def _array(chance: random.Random) -> Request:
    rows, content = _rows(chance), io.BytesIO()
    np.save(content, _PIXELS[rows])
    digits = [_LABELS[row] for row in rows]
    return request("npy", content.getvalue(), "application/x-npy", digits=digits)


def _json(chance: random.Random) -> Request:
    rows = _rows(chance)
    body = json.dumps({"inputs": _inputs(rows).astype(float).tolist()}).encode()
    return request("json", body, "application/json", digits=[_LABELS[row] for row in rows])


def _closing(made: Request) -> Request:
    return Request(made.name, made.content, made.statuses, may_close=True)


def _chunked_without_end() -> Request:
    """More than a body may hold, in chunks that announce nothing."""
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    body = chunk * (MAX_BODY_MB * 16 + 1)
    lines = ["Transfer-Encoding: chunked"]
    return _closing(request("oversize, chunked", body, _OCTETS, (413,), head=lines))


_ROW = _PIXELS[0].tobytes()
_PNG = _FILES[0].read_bytes()
_NAN = np.full(64, np.nan, "<f4").tobytes()
_FLOATS = "?dtype=float32"
_ELSEWHERE = "/v1/models/digits/versions/9/predict"
_OVERSIZE = f"Content-Length: {MAX_BODY_MB << 21}"
_BAD: tuple[Callable[[], Request], ...] = (
    partial(request, "wrong type", _ROW, "text/plain", (415,)),
    partial(request, "unknown model", _ROW, _OCTETS, (404,), address="/v1/models/none/predict"),
    partial(request, "unknown version", _ROW, _OCTETS, (404,), address=_ELSEWHERE),
    partial(request, "unknown parameter", _ROW, _OCTETS, (400,), query="?colour=blue"),
    partial(request, "wrong method", b"", _OCTETS, (405,), method="PUT"),
    partial(request, "empty", b"", "image/png", (400,)),
    partial(request, "truncated image", _PNG[: len(_PNG) // 2], "image/png", (400,)),
    partial(request, "no image", b"\x89PNG\r\n" + bytes(40), "image/png", (400,)),
    partial(request, "part of a row", _ROW[:-1], _OCTETS, (400,), query="?dtype=uint8"),
    partial(request, "not a number", _NAN, _OCTETS, (400,), query=_FLOATS),
    partial(request, "no JSON", b'{"inputs": [[', "application/json", (400,)),
    partial(request, "wrong shape", b'{"inputs": [[1, 2, 3]]}', "application/json", (400,)),
    partial(request, "too many rows", _ROW * 513, _OCTETS, (413,), query="?dtype=uint8"),
    partial(request, "hasty", _ROW, _OCTETS, (200, 504), query="?dtype=uint8&timeout_ms=1"),
    lambda: _closing(request("oversize", b"", _OCTETS, (413,), head=[_OVERSIZE])),
    lambda: Request("no HTTP", b"HELLO\r\n\r\n", frozenset({400}), may_close=True),
    _chunked_without_end,
)
