"""A checkpoint: the file that training left, and the one set of weights in it that is to be served."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from service.errors import InvalidWeights
from service.importing import torch_file
from service.importing.formats import SAVE_STATE_DICT, recognised
from service.store.weights import listed

if TYPE_CHECKING:
    from pathlib import Path

_AVERAGED = ("ema", "averaged", "swa", "shadow")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights as a file holds it."""

    tensors: dict[str, Tensor]
    """On the CPU, by the names that they have in the file."""
    remarks: tuple[str, ...]
    file: str
    """The file's name, without its folder."""
    sha256: str


def read(path: Path, entry: str | None = None) -> Checkpoint:
    """The weights in a safetensors file or one of `torch.save`; `entry` says which, where there are several.

    Nothing of the file is run. Raises `InvalidWeights` where it is no such file, or which weights are meant
    cannot be told.
    """
    if recognised(path) == "safetensors":
        tensors, remarks = _of_safetensors(path, entry)
    else:
        tensors, remarks = _of_document(path.name, torch_file.read(path), entry)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(tensors, tuple(remarks), path.name, digest)


def _of_safetensors(path: Path, entry: str | None) -> tuple[dict[str, Tensor], list[str]]:
    if entry is not None:
        raise InvalidWeights(f"{path.name} is a safetensors file, which has no entry {entry!r}")
    try:
        return load_file(path), []
    except (SafetensorError, KeyError, OSError) as error:
        raise InvalidWeights(f"{path.name} is not a safetensors file: {error}") from error


def _of_document(name: str, document: object, entry: str | None) -> tuple[dict[str, Tensor], list[str]]:
    if torch_file.is_module(document):
        raise _whole_model(f"{name} is a whole model", document)
    if not isinstance(document, Mapping):
        raise InvalidWeights(f"{name} holds a {_kind(document)} and no weights by name")
    sets = {key: value for key, value in document.items() if _is_state_dict(value)}
    if entry is not None:
        return _chosen(name, document, sets, entry)
    loose = [key for key, value in document.items() if isinstance(value, Tensor)]
    if loose and not (
        sets and all(document[key].dim() == 0 for key in loose)
    ):  # a best accuracy is no weight
        return _tensors(document)
    if not sets:
        raise _without_weights(name, document)
    (only, *others) = sets
    if others:
        raise InvalidWeights(f"{name} holds several sets of weights: {_keys(sets)}; choose one with --entry")
    if _is_averaged(only):
        raise InvalidWeights(
            f"the weights in {name} are averages over the training ({only}); to take them, say --entry {only}"
        )
    return _chosen(name, document, sets, only)


def _chosen(
    name: str, document: Mapping[str, object], sets: Mapping[str, Mapping[str, object]], entry: str
) -> tuple[dict[str, Tensor], list[str]]:
    if entry not in sets:
        if torch_file.is_module(document.get(entry)):
            raise _whole_model(f"{entry} in {name} is a whole model", document[entry])
        raise InvalidWeights(f"{name} has no weights in {entry!r}; it has {_keys(sets) or 'none at all'}")
    tensors, remarks = _tensors(sets[entry])
    return tensors, [f"The weights are those in {entry!r} of the checkpoint.", *remarks]


def _tensors(document: Mapping[str, object]) -> tuple[dict[str, Tensor], list[str]]:
    tensors = {str(key): value.detach() for key, value in document.items() if isinstance(value, Tensor)}
    if odd := [key for key, tensor in tensors.items() if not _is_plain(tensor)]:
        raise InvalidWeights(f"not plain tensors of real numbers with values: {listed(odd)}")
    left_out = [str(key) for key, value in document.items() if not isinstance(value, Tensor)]
    return tensors, [f"Left out, being no tensors: {listed(left_out)}."] if left_out else []


def _is_plain(tensor: Tensor) -> bool:
    has_values = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return has_values and not tensor.is_complex() and not tensor.is_quantized


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values())


def _is_averaged(entry: object) -> bool:
    return any(word in str(entry).lower() for word in _AVERAGED)


def _without_weights(name: str, document: Mapping[str, object]) -> InvalidWeights:
    for key, value in document.items():
        if torch_file.is_module(value):
            return _whole_model(f"{key} in {name} is a whole model", value)
    keys = _keys(document) or "nothing"
    return InvalidWeights(f"{name} holds no weights by name; it holds {keys}. Save them: {SAVE_STATE_DICT}")


def _whole_model(what: str, module: object) -> InvalidWeights:
    return InvalidWeights(
        f"{what} ({torch_file.stands_for(module)}), which only its own code can read. Where you trust it, "
        "convert it where that code is: network = torch.load(FILE, weights_only=False); "
        f"{SAVE_STATE_DICT}. Then import these weights with their architecture, or the class with --callable"
    )


def _kind(value: object) -> str:
    return torch_file.stands_for(value) or type(value).__name__


def _keys(document: Mapping[str, object]) -> str:
    return listed([str(key) for key in document])
