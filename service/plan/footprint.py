"""The footprint: the bytes that tensors take, each memory counted once whoever shares it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

# It pads channels to whole blocks; with a torch that does not say by how much, the numbers alone count.
_packed_bytes = getattr(torch.ops.mkldnn, "_nbytes", None)


def of(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Bytes of `weights`, which are plain tensors, and of those `packed` into oneDNN's own layouts."""
    weights: dict[int, int] = {}
    packed: dict[int, int] = {}
    for tensor in tensors:
        if tensor.is_mkldnn:
            packed[id(tensor)] = _packed_bytes(tensor) if _packed_bytes else tensor.nbytes
        else:
            storage = tensor.untyped_storage()
            weights[storage.data_ptr()] = storage.nbytes()
    return {"weights": sum(weights.values()), "packed": sum(packed.values())}
