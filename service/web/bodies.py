"""Bodies: the rows that a request to predict brings, whatever form they come in."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import InputTooLarge, InvalidInput, JobCancelled, UnsupportedMediaType
from service.inputs.decoding import decode_image
from service.inputs.tensors import rows_from_json, rows_from_npy, rows_from_octets

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from service.settings import Settings
    from service.store.manifest import Input
    from service.web.context import Parts
    from service.web.schemas import PredictQuery

IMAGES = ("image/jpeg", "image/png")
READ = (*IMAGES, "multipart/form-data", "application/json", "application/x-npy", "application/octet-stream")

# Below this, parsing takes less time than handing the work to another thread.
_INLINE_BYTES = 16 * 1024


class _InMemory(MultiPartParser):
    """Bodies are bounded already, so that no part of one needs to go through a file."""

    spool_max_size = sys.maxsize
    is_complete = False

    def on_end(self) -> None:
        """Called at the closing boundary, without which the last part is not whole."""
        super().on_end()
        self.is_complete = True


async def read_rows(request: Request, parts: Parts, spec: Input, query: PredictQuery) -> np.ndarray:
    """The rows of the body, uint8 pixels or float32 network inputs `[N, C, H, W]`.

    Raises `InvalidInput` and its kinds; decoding runs on the decoders' threads, not on the loop.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in READ:
        raise UnsupportedMediaType(f"content type {media_type!r} is not read; these are: {', '.join(READ)}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not read")
    try:
        images = await _images(request, parts.settings) if media_type == "multipart/form-data" else []
        content = b"" if images else await request.body()
    except ClientDisconnect:
        raise JobCancelled("the client went away before its body was complete") from None
    if not images and not content:
        raise InvalidInput("the body is empty")

    def decode() -> np.ndarray:
        return _decoded(media_type, content, images, parts.settings, spec, query)

    # An image's cost is in its pixels, which its length does not tell.
    if media_type in IMAGES or images or len(content) > _INLINE_BYTES:
        return await asyncio.get_running_loop().run_in_executor(parts.decoders, decode)
    return decode()


def _decoded(
    media_type: str,
    content: bytes,
    images: list[bytes],
    settings: Settings,
    spec: Input,
    query: PredictQuery,
) -> np.ndarray:
    max_rows = settings.max_request_rows
    readers: dict[str, Callable[[], np.ndarray]] = {
        "application/json": lambda: rows_from_json(content, query.dtype, spec, max_rows, settings.max_pixels),
        "application/x-npy": lambda: rows_from_npy(content, spec, max_rows),
        "application/octet-stream": lambda: rows_from_octets(content, query.dtype, spec, max_rows),
    }
    reader = readers.get(media_type)
    if reader is not None:
        return reader()
    if not images:
        return decode_image(content, spec, settings.max_pixels)[np.newaxis]
    return np.stack([_decode_part(part, index, spec, settings) for index, part in enumerate(images)])


def _decode_part(content: bytes, index: int, spec: Input, settings: Settings) -> np.ndarray:
    try:
        return decode_image(content, spec, settings.max_pixels)
    except InvalidInput as error:
        raise type(error)(f"image {index}: {error}") from None


async def _images(request: Request, settings: Settings) -> list[bytes]:
    """The files of a multipart body, in order."""
    parser: Any = _InMemory(
        request.headers, request.stream(), max_files=settings.max_request_rows, max_fields=0
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise InputTooLarge(f"more than {settings.max_request_rows} images in one request") from None
        raise InvalidInput(f"the multipart body is malformed: {error.message}") from None
    except KeyError:
        raise InvalidInput("the multipart body names no boundary") from None
    if not parser.is_complete:
        raise InvalidInput("the multipart body stops before its closing boundary")
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not uploads:
        raise InvalidInput("the multipart body has no file")
    return [await upload.read() for upload in uploads]
