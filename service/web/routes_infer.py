"""Infer: one request of the Open Inference Protocol, from its body to its answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import InvalidInput
from service.inputs.documents import QUICK_BYTES
from service.inputs.named_tensors import rows_from_tensors
from service.protocol import coding
from service.protocol.body import LENGTH_HEADER, Reader, document_length
from service.protocol.request import InferRequest, Octets, RequestedOutput, Tensor, read_request
from service.protocol.response import OutputTensor, classified, write_response
from service.web.access import entry_of
from service.web.bodies import beside_the_loop, checked_media_type, received
from service.web.body_limit import HOLD
from service.web.context import parts_of
from service.web.inference import Times, counted, infer
from service.web.predictions import refuse_classes, refuse_numbers, top
from service.web.raw_route import MODEL, VERSION, RawRoute
from service.web.schemas_infer import documented, responses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batching.job import Answer
    from service.engine.card import ModelCard
    from service.inputs.rows import Rows
    from service.settings import Settings
    from service.web.context import Parts

router = APIRouter(tags=["Open Inference Protocol v2"], route_class=RawRoute)

# The last is what curl sends with `-d` and nothing said; many examples of the protocol do that.
_READ = ("", "application/json", "application/octet-stream", "application/x-www-form-urlencoded")
# As many are looked at, one after another, in the time that another thread costs.
_QUICK_PIECES = 256
_QUICK_COMPRESSED_BYTES = 1024
_QUICK_ANSWER_BYTES = 32 * 1024


@router.post("/v2/models/{model}/infer", responses=responses(), openapi_extra=documented(MODEL))
async def infer_model(request: Request) -> Response:
    """Infer with the highest version that is served."""
    return await infer_with(request, request.path_params["model"])


@router.post(
    "/v2/models/{model}/versions/{version}/infer",
    responses=responses(),
    openapi_extra=documented(MODEL, VERSION),
)
async def infer_version(request: Request) -> Response:
    """Infer with one version."""
    return await infer_with(request, request.path_params["model"], request.path_params["version"])


async def infer_with(request: Request, model: str, version: str | None = None) -> Response:
    """The answer, counted by outcome; raises whatever error is to be answered."""
    parts = parts_of(request)
    answered, entry = partial(_answered, request, parts), entry_of(request.scope)
    return await counted(parts, model, version, answered, entry)


async def _answered(request: Request, parts: Parts, card: ModelCard, times: Times) -> Response:
    limit_s = parts.settings.timeout_ms / 1000
    parts.client.refuse_when_full(card, times.started + limit_s)
    body = await _body(request, parts)
    header = request.headers.get(LENGTH_HEADER)
    document_bytes = document_length(header, body.left)
    read = partial(_read, body, document_bytes, header is not None, card, parts.settings)
    is_quick = is_read_quickly(body, document_bytes)
    asked, rows = await beside_the_loop(read, parts.decoders, is_quick=is_quick)
    deadline = times.started + min(asked.timeout_s or limit_s, limit_s)
    response = await infer(request, parts, card, rows, deadline, times, partial(_written, asked, card))
    return await _encoded(response, request, parts)


async def _body(request: Request, parts: Parts) -> Reader:
    """The body as it was before it was compressed."""
    checked_media_type(request, _READ)
    compressed = coding.of_request(request.headers.get("content-encoding"))
    pieces = await received(request)
    if not pieces:
        raise InvalidInput("the body is empty")
    if compressed is None:
        return Reader(pieces)
    came, limit = sum(map(len, pieces)), parts.settings.max_inflated_bytes
    inflate = partial(coding.inflated, pieces, compressed, limit)
    is_quick = came <= _QUICK_COMPRESSED_BYTES
    body = Reader(await beside_the_loop(inflate, parts.decoders, is_quick=is_quick))
    request.scope["state"][HOLD](max(body.left - came, 0))
    return body


def is_read_quickly(body: Reader, document_bytes: int) -> bool:
    """Whether reading the request takes less time than handing it to another thread.

    Tensors are not looked at yet: numbers are read and images cut apart where rows are written.
    """
    return document_bytes <= QUICK_BYTES and len(body) <= _QUICK_PIECES


def _read(
    body: Reader, document_bytes: int, is_told: bool, card: ModelCard, settings: Settings
) -> tuple[InferRequest, Rows]:
    """What is asked, and the rows that come with it; raises `InvalidInput` and its kinds."""
    spec = card.facts.manifest.input
    if document_bytes or not is_told:
        asked = read_request(body, document_bytes)
    else:  # a raw request: one row of the only input, and nothing else
        row = Tensor(spec.name, "FP32", (1, *spec.shape), Octets(body.take(body.left)))
        asked = InferRequest([row], is_binary=True)
    _check_outputs(asked, card)
    rows = rows_from_tensors(asked.inputs, spec, settings.max_request_rows, settings.max_pixels)
    _refuse_long(asked, rows.count, card)
    return asked, rows


def _check_outputs(asked: InferRequest, card: ModelCard) -> None:
    """Raise `InvalidInput` for outputs that the model has not, before anything is computed."""
    known = card.facts.manifest.output
    for output in asked.outputs:
        if output.name != known.name:
            raise InvalidInput(f"there is no output {output.name[:64]!r}; the model has {known.name!r}")
        if output.classes is None:
            continue
        if known.task != "classification":
            raise InvalidInput(f"output {known.name!r} is a tensor and cannot be classified")
        if output.classes > card.facts.output_shape[0]:
            raise InvalidInput(
                f"parameter 'classification' is {output.classes}, but there are "
                f"{card.facts.output_shape[0]} classes"
            )


def _refuse_long(asked: InferRequest, rows: int, card: ModelCard) -> None:
    """Raise `InputTooLarge` where answers would hold everybody else up while they are written."""
    row_shape = card.facts.output_shape
    for output in _wanted(asked, card):
        is_binary = asked.is_binary if output.is_binary is None else output.is_binary
        if output.classes is not None:
            refuse_classes(rows, output.classes)
        elif not is_binary:
            refuse_numbers(rows, row_shape)


def _wanted(asked: InferRequest, card: ModelCard) -> Sequence[RequestedOutput]:
    return asked.outputs or [RequestedOutput(card.facts.manifest.output.name)]


def _written(asked: InferRequest, card: ModelCard, answer: Answer) -> Response:
    facts = card.facts
    outputs = [_tensor(asked, output, card, answer) for output in _wanted(asked, card)]
    content, document_bytes = write_response(facts.model, facts.version, asked.identity, outputs)
    if document_bytes is None:
        return Response(content, media_type="application/json")
    headers = {LENGTH_HEADER: str(document_bytes)}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _tensor(asked: InferRequest, output: RequestedOutput, card: ModelCard, answer: Answer) -> OutputTensor:
    is_binary = asked.is_binary if output.is_binary is None else output.is_binary
    if output.classes is None:
        return OutputTensor(output.name, answer.rows.shape, answer.rows, is_binary)
    elements = classified(answer.rows, top(answer.rows, output.classes), card.facts.labels)
    return OutputTensor(output.name, (len(answer.rows), output.classes), elements, is_binary)


async def _encoded(response: Response, request: Request, parts: Parts) -> Response:
    """The answer compressed, where the client asks for that."""
    wanted = coding.of_response(request.headers.get("accept-encoding"))
    if wanted is None:
        return response
    content = bytes(response.body)
    is_quick = len(content) <= _QUICK_ANSWER_BYTES
    deflate = partial(coding.deflated, content, wanted)
    compressed = await beside_the_loop(deflate, parts.decoders, is_quick=is_quick)
    headers = dict(response.headers) | {"content-encoding": wanted, "content-length": str(len(compressed))}
    return Response(compressed, headers=headers)
