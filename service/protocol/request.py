"""The request to infer: named tensors, what is asked of the outputs, and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.errors import InvalidInput, InvalidTensor
from service.protocol.datatypes import BINARY_ONLY, checked_datatype, checked_shape
from service.protocol.documents import read_document
from service.protocol.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.protocol.body import Pieces, Reader
    from service.protocol.documents import Document

Parameters = dict[str, str | int | float | bool]

_PARAMETER = (str, int, float, bool)
_NAMED_CHARACTERS = 64
_MOST_TENSORS = 64


@dataclass(frozen=True)
class Octets:
    """The bytes of a tensor, little-endian, in the pieces in which they came."""

    pieces: Pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


@dataclass(frozen=True)
class Tensor:
    """One input."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: Numbers | Octets | list[Any]
    """Numbers in JSON, binary, or any other list of JSON values: strings, if it is right."""

    @property
    def at(self) -> str:
        """What errors call it."""
        return f"input {self.name[:_NAMED_CHARACTERS]!r}"


@dataclass(frozen=True)
class RequestedOutput:
    """What is asked of one output."""

    name: str
    is_binary: bool | None = None
    classes: int | None = None
    """So many of the best classes in place of the tensor."""


@dataclass(frozen=True)
class InferRequest:
    """A whole request."""

    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput] = ()
    """Empty: all of them."""
    identity: str | None = None
    """The `id`, which the response repeats."""
    is_binary: bool = False
    """How outputs are written of which nothing is said."""
    timeout_s: float | None = None
    """The parameter `timeout`, which is in microseconds; None where it is 0 or not given."""


def read_request(body: Reader, document_bytes: int) -> InferRequest:
    """The request of a whole body, which is then read to its end; its document has so many bytes.

    Raises `InvalidInput` and `InvalidTensor` for whatever the protocol does not allow. Names are not
    compared with any model's; numbers in JSON are not read yet.
    """
    document = read_document(b"".join(body.take(document_bytes)))
    root = document.root
    tensors = _tensors(document, body)
    if sum(isinstance(tensor.content, Numbers) for tensor in tensors) != len(document.arrays):
        raise InvalidInput("an array named data stands where none belongs")
    asked = _objects([] if root.get("outputs") is None else root["outputs"], "outputs")
    outputs = [_output(item, number) for number, item in enumerate(asked)]
    _refuse_twice([tensor.name for tensor in tensors], "input")
    _refuse_twice([output.name for output in outputs], "output")
    parameters = _parameters(root, "the request")
    return InferRequest(
        tensors,
        outputs,
        _text(root["id"], "id") if root.get("id") is not None else None,
        _flag(parameters, "binary_data_output") is True,
        (_whole(parameters, "timeout", 0) or 0) / 1e6 or None,
    )


def _tensors(document: Document, body: Reader) -> list[Tensor]:
    items = _objects(document.root.get("inputs"), "inputs")
    tensors = [_tensor(document, item, number, body) for number, item in enumerate(items)]
    if body.left:
        raise InvalidTensor(f"{body.left} bytes are left behind the last binary tensor")
    return tensors


def _tensor(document: Document, item: dict[str, Any], number: int, body: Reader) -> Tensor:
    at = f"inputs[{number}]"
    name = _text(item.get("name"), f"{at}.name")
    datatype = checked_datatype(item.get("datatype"), f"{at}.datatype")
    shape = checked_shape(item.get("shape"), f"{at}.shape")
    parameters = _parameters(item, at)
    size, values = _whole(parameters, "binary_data_size", 0), item.get("data")
    if (size is None) == (values is None):
        raise InvalidTensor(f"{at} needs either data or the parameter binary_data_size")
    if size is not None:
        octets = Octets(body.take(size))
        if len(octets) != size:
            raise InvalidTensor(f"{at} promises {size} bytes, of which {len(octets)} came")
        return Tensor(name, datatype, shape, octets)
    if datatype in BINARY_ONLY:
        raise InvalidTensor(f"{at} is {datatype}, which has no form in JSON: send it as binary data")
    return Tensor(name, datatype, shape, document.numbers(values) or _list(values, f"{at}.data"))


def _output(item: dict[str, Any], number: int) -> RequestedOutput:
    at = f"outputs[{number}]"
    parameters = _parameters(item, at)
    return RequestedOutput(
        _text(item.get("name"), f"{at}.name"),
        _flag(parameters, "binary_data"),
        _whole(parameters, "classification", 1),
    )


def _objects(value: Any, at: str) -> list[dict[str, Any]]:
    items = _list(value, at)
    if len(items) > _MOST_TENSORS:
        raise InvalidInput(f"{at} has more than {_MOST_TENSORS} entries")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidInput(f"{at}[{number}] is no object")
    return items


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{at} is {'missing' if value is None else 'no list'}")
    return value


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{at} is {'missing' if value is None else 'no string'}")
    return value


def _parameters(item: Mapping[str, Any], at: str) -> Parameters:
    found = item.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(f"the parameters of {at} are no object")
    for name, value in found.items():
        if name.startswith("shared_memory"):
            raise InvalidInput(f"{at} lies in shared memory, which is not offered")
        if not isinstance(value, _PARAMETER):
            raise InvalidInput(f"parameter {name[:_NAMED_CHARACTERS]!r} is no string, number or boolean")
    return found


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter {name!r} is no boolean")
    return value


def _whole(parameters: Parameters, name: str, least: int) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"parameter {name!r} is no integer of at least {least}")
    return value


def _refuse_twice(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{what} {twice[:_NAMED_CHARACTERS]!r} is named more than once")
