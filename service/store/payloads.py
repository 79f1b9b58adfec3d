"""The stored tensors of a vetted program: raw numbers, read by our own code."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from service.errors import InvalidProgram

if TYPE_CHECKING:
    from torch import Tensor

    from service.store.program import Program
    from service.store.tensor_tables import Payload

_MOST_ELEMENTS = 1 << 40

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""By their numbers in the format (`ScalarType`)."""


def tensors(program: Program) -> dict[str, Tensor]:
    """The program's tensors by name, on the CPU; parameters are parameters, without gradients.

    Names that say the same of the same bytes are one tensor. Raises `InvalidProgram` for a tensor that
    reaches beyond its bytes, or is larger than these.
    """
    storages: dict[tuple[str, torch.dtype], Tensor] = {}
    made: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, (payload, content) in program.tensors.items():
        dtype = DTYPES.get(payload.tensor_meta.dtype)
        if dtype is None:
            raise InvalidProgram(f"the stored tensor {name[:80]!r} has a dtype that is not supported")
        key = payload.path_name, dtype
        if key not in storages:
            storages[key] = _storage(name, content, dtype)
        same = payload.model_dump_json()
        if same not in made:
            made[same] = _view(name, payload, storages[key])
        found[name] = made[same]
    return found


def _storage(name: str, content: memoryview, dtype: torch.dtype) -> Tensor:
    """All elements of a payload; a copy, so that the archive can be forgotten, and aligned for any dtype."""
    if len(content) % dtype.itemsize:
        raise InvalidProgram(f"the bytes of {name[:80]!r} are no whole number of elements")
    if not content:
        return torch.empty(0, dtype=dtype)
    octets = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return octets != 0 if dtype == torch.bool else octets.view(dtype)


def _view(name: str, payload: Payload, storage: Tensor) -> Tensor:
    meta = payload.tensor_meta
    sizes, strides = ([extent.as_int for extent in extents] for extents in (meta.sizes, meta.strides))
    offset, count = meta.storage_offset.as_int, math.prod(sizes)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=False))
    is_absurd = math.prod(max(size, 1) for size in sizes) >= _MOST_ELEMENTS  # though one without elements
    if len(sizes) != len(strides) or is_absurd or count > len(storage) or (count and last >= len(storage)):
        raise InvalidProgram(f"the stored tensor {name[:80]!r} reaches beyond its bytes")
    tensor = storage.as_strided(sizes, strides, offset) if count else storage.new_empty(sizes)
    return nn.Parameter(tensor, requires_grad=False) if payload.is_param else tensor
