"""Bodies: the rows that a request to predict brings, whatever form they come in."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import InputTooLarge, InvalidInput, JobCancelled, UnsupportedMediaType
from service.inputs.documents import QUICK_BYTES, rows_from_json
from service.inputs.images import rows_from_image, rows_from_images
from service.inputs.tensors import rows_from_npy, rows_from_octets
from service.web.problems import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future

    import numpy as np
    from starlette.requests import Request
    from starlette.types import Receive

    from service.inputs.rows import Dtype, Rows
    from service.store.manifest import Input
    from service.web.context import Parts
    from service.web.schemas import RowsQuery

IMAGES = ("image/jpeg", "image/png")
READ = (*IMAGES, "multipart/form-data", "application/json", "application/x-npy", "application/octet-stream")

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
DOCUMENTED: dict[str, Any] = {
    "required": True,
    "content": {
        **dict.fromkeys((*IMAGES, "application/x-npy", "application/octet-stream"), _BINARY),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": _BINARY["schema"]}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "additionalProperties": False,
                "properties": {
                    "inputs": {
                        "type": "array",
                        "description": 'Rows as nested numbers, or encoded images as {"b64": "..."}.',
                        "items": {},
                    }
                },
            }
        },
    },
}
"""What OpenAPI says of a body of rows."""

_SMALL_CHUNK = 4096

T = TypeVar("T")


class _InMemory(MultiPartParser):
    """Bodies are bounded already, so that no part of one needs to go through a file."""

    spool_max_size = sys.maxsize
    is_complete = False

    def on_end(self) -> None:
        """Called at the closing boundary, without which the last part is not whole."""
        super().on_end()
        self.is_complete = True

    def close(self) -> None:
        """Let go of every part, those that never ended too."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_rows(
    request: Request, parts: Parts, spec: Input, query: RowsQuery, max_rows: int | None = None
) -> Rows:
    """The rows of the body, at most `max_rows`: how much they are, and how they are written.

    Raises `InvalidInput` and its kinds, and `JobCancelled` for a client that went away. The body
    stays in the pieces in which it came; only a document or an image is joined.
    """
    media_type = checked_media_type(request, READ)
    max_rows = max_rows or parts.settings.max_request_rows
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not read")
    try:
        if media_type == "multipart/form-data":
            images = await _images(request, max_rows)
            return rows_from_images(images, spec, max_rows, parts.settings.max_pixels)
        chunks = await gathered(request.receive)
    except ClientDisconnect:
        raise _gone() from None
    if not chunks:
        raise InvalidInput("the body is empty")
    return await _rows(media_type, chunks, parts, spec, query.dtype, max_rows)


async def fill(
    rows: Rows, out: np.ndarray, decoders: Executor, check: Callable[[], None] = lambda: None
) -> None:
    """Write `rows` to `out`, on a thread of `decoders` unless that is quick.

    Raises what `rows.write` raises, and what `check` raises between two rows. However it ends,
    cancelled too, nobody writes to `out` afterwards.
    """
    if rows.is_quick:
        rows.write(out)
        return
    is_given_up = False

    def look() -> None:
        if is_given_up:
            raise JobCancelled("nobody waits for the rows any more")
        check()

    writing = decoders.submit(rows.write, out, look)
    try:
        await asyncio.wrap_future(writing)
    except asyncio.CancelledError:
        is_given_up = True
        if not writing.cancel():
            await _ended(writing)
        raise


async def _ended(writing: Future[None]) -> None:
    """Wait for the end, however often the caller is cancelled; how it ended interests nobody."""
    ending = asyncio.wrap_future(writing)
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([ending])
    ending.exception()  # or the loop would complain of it


async def received(request: Request) -> list[bytes]:
    """A whole body, as `gathered`; raises `JobCancelled` for a client that went away."""
    try:
        return await gathered(request.receive)
    except ClientDisconnect:
        raise _gone() from None


async def gathered(receive: Receive) -> list[bytes]:
    """The pieces of a body as they come, except that very small ones are joined.

    Otherwise a body that comes a byte at a time would take many times its length. Raises `ClientDisconnect`.
    """
    chunks: list[bytes] = []
    is_more = True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, is_more = message.get("body", b""), message.get("more_body", False)
        if chunks and len(chunks[-1]) + len(chunk) <= _SMALL_CHUNK:
            chunks[-1] += chunk
        elif chunk:
            chunks.append(chunk)
    return chunks


def _gone() -> JobCancelled:
    return JobCancelled("the client went away before its body was complete")


def checked_media_type(request: Request, read: Sequence[str]) -> str:
    """The type of the body, without its parameters; raises `UnsupportedMediaType` for one not in `read`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in read:
        raise UnsupportedMediaType(
            f"content type {shortened(media_type)!r} is not read; these are: {', '.join(filter(None, read))}"
        )
    return media_type


async def beside_the_loop(work: Callable[[], T], decoders: Executor, *, is_quick: bool) -> T:
    """The result of `work`, done on a thread of `decoders` unless it is quick."""
    if is_quick:
        return work()
    return await asyncio.get_running_loop().run_in_executor(decoders, work)


async def _rows(
    media_type: str, chunks: list[bytes], parts: Parts, spec: Input, dtype: Dtype, max_rows: int
) -> Rows:
    max_pixels = parts.settings.max_pixels
    if media_type == "application/octet-stream":
        return rows_from_octets(chunks, dtype, spec, max_rows)
    if media_type == "application/x-npy":
        return rows_from_npy(chunks, spec, max_rows)
    content = b"".join(chunks)
    if media_type in IMAGES:
        return rows_from_image(content, spec, max_pixels)
    read = partial(rows_from_json, content, dtype, spec, max_rows, max_pixels)
    return await beside_the_loop(read, parts.decoders, is_quick=len(content) <= QUICK_BYTES)


async def _images(request: Request, max_rows: int) -> list[bytes]:
    """The files of a multipart body, in order."""
    parser = _InMemory(request.headers, request.stream(), max_files=max_rows, max_fields=0)
    try:
        form = await parser.parse()
        return await _files(form, parser)
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise InputTooLarge(f"more than {max_rows} images in one request") from None
        raise InvalidInput(f"the multipart body is malformed: {error.message}") from None
    except ValueError:  # of a charset that Python knows and that decodes nothing, or of what names none
        raise InvalidInput("the multipart body is malformed: its charset cannot be read") from None
    finally:
        parser.close()


async def _files(form: FormData, parser: _InMemory) -> list[bytes]:
    if not parser.is_complete:
        raise InvalidInput("the multipart body stops before its closing boundary")
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not uploads:
        raise InvalidInput("the multipart body has no file")
    return [await upload.read() for upload in uploads]
