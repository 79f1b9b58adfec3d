"""An exported program (`model.pt2`), vetted; no torch, and nothing of it is ever run here.

torch's own loader is never called: it evaluates expressions, unpickles, imports and calls by name in what a
file says. Here an archive is read to plain tables, or refused with a reason. `service.network.program` builds
the network from these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidProgram
from service.store import archive
from service.store import content as files
from service.store.expressions import refuse_code, walk
from service.store.operators import ATEN, INTEGER
from service.store.program_layout import CONFIGURATIONS, FIXED, MODEL, SAMPLE_INPUTS, document_of, named
from service.store.program_tables import ExportedProgram, Graph
from service.store.tensor_tables import Payload, Payloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.store.model_store import StoredModel

FILE_NAME = "model.pt2"

_T = TypeVar("_T", bound=BaseModel)

_FLOAT32 = 7


@dataclass(frozen=True)
class Program:
    """A program that may be built: known operators, raw tensors, one row in and one answer out."""

    graph: Graph
    stored: dict[str, str]
    """The name of a stored tensor by that of the graph's placeholder."""
    input: str
    output: str
    row: tuple[int | None, ...]
    """The shape of an input without its batch axis; None for a size that depends on the input."""
    tensors: dict[str, tuple[Payload, memoryview]]
    """By the names of the stored tensors: where its elements are in which bytes."""
    document: dict[str, Any]
    """The model's JSON, for writing it again."""
    configurations: dict[str, bytes]


def read(stored: StoredModel) -> Program:
    """The program of a stored version.

    Raises `InvalidProgram` where the file is missing, differs from the manifest's digest, or is refused.
    """
    table = stored.manifest.program
    if table is None:
        raise InvalidProgram(f"{stored} is no exported program")
    try:
        content = files.read(stored.weights_path)
    except OSError as error:
        raise InvalidProgram(f"{stored}: {table.file} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != table.sha256:
        raise InvalidProgram(
            f"{stored}: {table.file} has sha256 {digest}, but the manifest says {table.sha256}"
        )
    try:
        return vet(content)
    except InvalidProgram as why:
        raise InvalidProgram(f"{stored}: {table.file} is not loaded: {why}") from why


def vet(content: bytes) -> Program:
    """The program in the bytes of a `.pt2`; raises `InvalidProgram`, with the reason."""
    entries = named(archive.read(content))
    document = document_of(entries, MODEL)
    refuse_code(document)
    program = _parsed(ExportedProgram, document, MODEL)
    tensors = dict(_tensors(entries))
    graph, signature = program.graph_module.graph, program.graph_module.signature
    _check_calls(graph)
    stored = _stored_names(signature.input_specs, tensors)
    asked = _only("input", [spec.user_input for spec in signature.input_specs if spec.user_input])
    return Program(
        graph=graph,
        stored=stored,
        input=asked,
        row=_row(graph, asked),
        output=_only("output", [spec.user_output for spec in signature.output_specs]),
        tensors=tensors,
        document=document,
        configurations={name: bytes(entries[name]) for name in CONFIGURATIONS.values() if name in entries},
    )


def rewritten(program: Program) -> bytes:
    """A fresh archive with what was vetted, and nothing else: no sample inputs, no paths of its making.

    `vet` takes it, and so does torch.
    """
    for node in program.document["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {k: v for k, v in node.get("metadata", {}).items() if k == "nn_module_stack"}
    entries: dict[str, bytes | memoryview] = {}
    for payload, content in program.tensors.values():
        folder = "weights" if payload.path_name.startswith("weight_") else "constants"
        entries[f"data/{folder}/{payload.path_name}"] = content
    entries |= program.configurations
    entries |= {MODEL: json.dumps(program.document, allow_nan=False).encode(), SAMPLE_INPUTS: b""}
    entries |= {**FIXED, ".data/version": b"6\n"}
    return archive.write({f"model/{name}": content for name, content in entries.items()})


def _parsed(kind: type[_T], document: dict[str, Any], name: str) -> _T:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))[:200]
        said = problem["msg"].removeprefix("Value error, ")
        raise InvalidProgram(f"{name}, {where}: {said}") from None
    except RecursionError:
        raise InvalidProgram(f"entry {name!r} is too deep") from None


def _check_calls(graph: Graph) -> None:
    """Every operator is known, and every value is made once."""
    for node in graph.nodes:
        if node.target not in ATEN and node.target not in INTEGER:
            raise InvalidProgram(f"it calls {node.target[:120]!r}, which is not on the list of operators")


def _row(graph: Graph, name: str) -> tuple[int | None, ...]:
    """The shape of one row of the input `name`, which must be float32 with a batch axis of any size."""
    meta = graph.tensor_values.get(name)
    if meta is None or meta.dtype != _FLOAT32:
        raise InvalidProgram("it does not take float32: export the network in float32")
    batch, *row = [extent.as_int if extent.kind == "as_int" else None for extent in meta.sizes] or [0]
    if batch is not None:
        raise InvalidProgram(
            "its batch size is fixed: export with an example of two rows and "
            'dynamic_shapes=({0: torch.export.Dim("batch")},)'
        )
    return tuple(row)


def _stored_names(specifications: Any, tensors: Mapping[str, Any]) -> dict[str, str]:
    stored: dict[str, str] = {}
    for spec in specifications:
        if spec.parameter:
            stored[spec.parameter.arg.name] = spec.parameter.parameter_name
        elif spec.buffer:
            stored[spec.buffer.arg.name] = spec.buffer.buffer_name
        elif spec.tensor_constant:
            stored[spec.tensor_constant.arg.name] = spec.tensor_constant.tensor_constant_name
    missing = sorted({name for name in stored.values() if name not in tensors})
    if missing:
        raise InvalidProgram(f"the stored tensor {missing[0][:80]!r} is missing")
    return stored


def _only(what: str, found: list[Any]) -> str:
    if len(found) != 1 or found[0] is None or found[0].arg.as_tensor is None:
        raise InvalidProgram(f"it has not exactly one {what}, a tensor")
    name: str = found[0].arg.as_tensor.name
    return name


def _tensors(entries: Mapping[str, memoryview]) -> Iterator[tuple[str, tuple[Payload, memoryview]]]:
    seen: set[str] = set()
    for folder, name in CONFIGURATIONS.items():
        document = document_of(entries, name)
        _refuse_pickles(document)
        for tensor, payload in _parsed(Payloads, document, name).config.items():
            content = entries.get(folder + payload.path_name)
            if content is None or tensor in seen:
                raise InvalidProgram(f"the stored tensor {tensor[:80]!r} has no bytes, or is there twice")
            seen.add(tensor)
            yield tensor, (payload, content)


def _refuse_pickles(document: dict[str, Any]) -> None:
    for key, value in walk(document):
        if key == "use_pickle" and value is not False:
            raise InvalidProgram("a stored tensor is pickled (use_pickle)")
        if key == "expr_str":
            raise InvalidProgram("a stored tensor has a size that depends on the input")
