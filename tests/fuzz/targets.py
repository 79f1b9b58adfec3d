"""Targets: every decoder of bytes that somebody else may have chosen, each as a function of bytes.

A target returns, or raises what its decoder says that it raises. Anything else is a bug.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from starlette.requests import Request

from service.errors import FoldserveError, InvalidManifest, InvalidProgram, InvalidWeights
from service.importing import checkpoint
from service.inputs.decoding import decode_image
from service.inputs.documents import rows_from_json
from service.inputs.named_tensors import rows_from_tensors
from service.inputs.tensors import rows_from_npy
from service.network.program import ProgramNetwork
from service.protocol import coding
from service.protocol.body import Reader, document_length
from service.protocol.request import read_request
from service.settings import Settings
from service.store import answers, program
from service.store import manifest as manifests
from service.store.manifest import Input
from service.web.bodies import _images, checked_media_type
from service.web.hosts import Hosts
from service.web.inference import parsed_version
from service.web.queries import parsed
from service.web.representation import _names, preferred
from service.web.schemas import PredictQuery

if TYPE_CHECKING:
    from service.inputs.rows import Rows

Target = Callable[[bytes], object]

MOST_PIXELS = 1_000_000
MOST_ROWS = 16
MOST_INFLATED = 1 << 20
COLOUR = Input(shape=[3, 8, 8], resize=9, mean=[0.0] * 3, std=[1.0] * 3)
GRAY = Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0])
CUT = b"\n\n--cut--\n\n"
"""In a file of the corpus: where one part of a body ends and the next begins."""

_HOSTS = Hosts(Settings(allowed_hosts="foldserve.example,*.inner.example"))


def _written(rows: Rows) -> None:
    rows.write(np.empty(rows.shape, rows.dtype))


def image(content: bytes) -> None:
    for spec in (COLOUR, GRAY):
        decode_image(content, spec, MOST_PIXELS, np.empty(spec.shape, np.uint8))


def npy(content: bytes) -> None:
    half = len(content) // 2
    _written(rows_from_npy([content[:half], content[half:]], GRAY, MOST_ROWS))


def json(content: bytes) -> None:
    kinds: tuple[Literal["uint8", "float32"], ...] = ("float32", "uint8")
    for dtype in kinds:
        _written(rows_from_json(content, dtype, GRAY, MOST_ROWS, MOST_PIXELS))


def infer(content: bytes) -> None:
    """A document and, behind the cut, binary tensors."""
    document, _, tail = content.partition(CUT)
    asked = read_request(Reader([document + tail[:3], tail[3:]]), len(document))
    _written(rows_from_tensors(asked.inputs, GRAY, MOST_ROWS, MOST_PIXELS))


def form(content: bytes) -> None:
    """A content type and, behind the cut, a body."""
    content_type, _, body = content.partition(CUT)
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    headers = [(b"content-type", content_type)]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    checked_media_type(request, ("multipart/form-data",))
    asyncio.run(_images(request, MOST_ROWS))


def gzip(content: bytes) -> None:
    found = coding.inflated([content[:5], content[5:]], "gzip", MOST_INFLATED)
    assert sum(map(len, found)) <= MOST_INFLATED


def deflate(content: bytes) -> None:
    coding.inflated([content], "deflate", MOST_INFLATED)


def query(content: bytes) -> None:
    parsed(content, PredictQuery)


def headers(content: bytes) -> None:
    """Values that strangers choose, as a server decodes them."""
    text = content.decode("latin-1")
    coding.of_response(text)
    preferred(text, "text/csv")
    _names(text, '"tag"')
    readers: tuple[Callable[[str], object], ...] = (
        coding.of_request,
        parsed_version,
        lambda value: document_length(value, 100),
        lambda _: _HOSTS.check("POST", [(b"host", content), (b"origin", b"http://" + content)]),
    )
    for read in readers:
        try:
            read(text)
        except FoldserveError:
            continue


def manifest(content: bytes) -> None:
    manifests.read(_file(content, "model.toml"))


def archive(content: bytes) -> None:
    """An exported program."""
    ProgramNetwork(program.vet(content))


def safetensors(content: bytes) -> None:
    checkpoint.read(_file(content, "weights.safetensors"))


def torch_file(content: bytes) -> None:
    checkpoint.read(_file(content, "weights.pth"))


def arrays(content: bytes) -> None:
    """Baselines, golden inputs and reference answers."""
    answers.read(_file(content, "baseline.safetensors"), {"format": "1"})


def _file(content: bytes, name: str) -> Path:
    """In a folder of this process, which goes with it."""
    path = _folder() / name
    path.write_bytes(content)
    return path


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="foldserve-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


TARGETS: dict[str, tuple[Target, type[Exception]]] = {
    "image": (image, FoldserveError),
    "npy": (npy, FoldserveError),
    "json": (json, FoldserveError),
    "infer": (infer, FoldserveError),
    "form": (form, FoldserveError),
    "gzip": (gzip, FoldserveError),
    "deflate": (deflate, FoldserveError),
    "query": (query, FoldserveError),
    "headers": (headers, FoldserveError),
    "manifest": (manifest, InvalidManifest),
    "archive": (archive, InvalidProgram),
    "safetensors": (safetensors, InvalidWeights),
    "torch_file": (torch_file, InvalidWeights),
    "arrays": (arrays, answers.NotUsable),
}
"""By name, with what each may raise; the corpus has a folder for each."""


def tried(name: str, content: bytes) -> bool:
    """Whether the content is accepted; raises whatever the target must not raise."""
    target, refusal = TARGETS[name]
    try:
        target(content)
    except refusal:
        return False
    return True
