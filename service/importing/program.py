"""Sources that become an exported program: a callable, a `.pt2` file, or an architecture of a library."""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from service.errors import InvalidConfiguration, InvalidProgram, InvalidWeights
from service.graph.export import exported
from service.importing.formats import recognised
from service.importing.source import Source
from service.network.program import ProgramNetwork
from service.store.program import FILE_NAME, rewritten, vet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from service.store.manifest import Input
    from service.store.program import Program


def from_callable(spec: str, row: Input, labels: tuple[str, ...] | None) -> Source:
    """The network that `package.module:factory` makes, exported: serving needs nothing of the package.

    The factory is called without arguments and gives a module with its weights. Raises
    `InvalidConfiguration` where there is no such factory or it makes none, `ModelRefused` for a network that
    cannot be exported with a dynamic batch, and `InvalidProgram` for one that calls what no program may.
    """
    network = _made(spec).cpu().eval()
    program = _rewritten(_saved(network, torch.zeros(2, *row.shape)))
    provenance = {"callable": spec, "torch": torch.__version__}
    return Source(
        network, row, labels, {}, _writer(program), (_summary(program, f"exported from {spec}"),), provenance
    )


def as_program(source: Source) -> Source:
    """The same source as an exported program: serving needs no library that its network comes from.

    Raises as `from_callable` does.
    """
    program = _rewritten(_saved(source.network, torch.zeros(2, *source.input.shape)))
    architecture = source.table["architecture"]
    return replace(
        source,
        table={},
        write=_writer(program),
        remarks=(*source.remarks, _summary(program, f"exported from {architecture}")),
        provenance={**(source.provenance or {}), "architecture": architecture, "torch": torch.__version__},
    )


def from_exported(path: Path, row: Input, labels: tuple[str, ...] | None) -> Source:
    """The network of a file that `torch.export.save` wrote; nothing of the file is run before it is vetted.

    Raises `InvalidConfiguration` for a file that cannot be read, and `InvalidProgram` with the reason for one
    that is refused, or that takes other rows than `row` says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        program = _rewritten(content)
        _check_row(program, row)
        network = ProgramNetwork(program)
    except InvalidProgram as why:
        raise InvalidProgram(f"{path.name} is not imported: {why}{_rather(path, content)}") from why
    provenance = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}
    return Source(
        network,
        row,
        labels,
        {},
        _writer(program),
        (_summary(program, f"taken from {path.name}"),),
        provenance,
    )


def _made(spec: str) -> nn.Module:
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise InvalidConfiguration(f"{spec!r} is no callable: say package.module:factory")
    with _working_folder_importable():
        try:
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            made: Any = found if isinstance(found, nn.Module) else found()  # type: ignore[operator]
        except Exception as error:  # the user's own code raises anything
            raise InvalidConfiguration(f"{spec} cannot be called: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise InvalidConfiguration(f"{spec} makes a {type(made).__name__}, not a torch.nn.Module")
    return made


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """As `python -m` has it; the console script has not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _saved(network: nn.Module, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    program = exported(network, example)
    program._guards_code = []  # what export assumed of its example, as Python code
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _rewritten(content: bytes) -> Program:
    """The program as the store will hold it: vetted, written anew, and vetted again."""
    return vet(rewritten(vet(content)))


def _writer(program: Program) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        content = rewritten(program)
        (folder / FILE_NAME).write_bytes(content)
        return {"program": {"file": FILE_NAME, "sha256": hashlib.sha256(content).hexdigest()}}

    return write


def _check_row(program: Program, row: Input) -> None:
    fits = len(program.row) == len(row.shape) and all(
        size in {None, wanted} for size, wanted in zip(program.row, row.shape, strict=True)
    )
    if not fits:
        said = ["any" if size is None else size for size in program.row]
        raise InvalidProgram(f"it takes rows of {said}, the input's shape is {row.shape}")


def _rather(path: Path, content: bytes) -> str:
    """What an archive is that is no exported program, and what to do with it."""
    if b"archive_format" in content or not (content[:2] == b"PK" or path.suffix == ".onnx"):
        return ""
    try:
        recognised(path)
    except InvalidWeights as what:
        return f"; {what}"
    return "; it is a checkpoint: import it with its ARCHITECTURE and --weights"


def _summary(program: Program, origin: str) -> str:
    calls = len(program.graph.nodes)
    return f"a program of {calls} calls, {origin}; serving it needs none of the code that made it"
