"""Named tensors: an input of the Open Inference Protocol as rows of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from service.errors import InvalidTensor
from service.inputs.documents import QUICK_BYTES, from_base64
from service.inputs.images import rows_from_images
from service.inputs.rows import Dtype, Rows, refuse_unusable, shape_of
from service.inputs.tensors import rows_from_octets
from service.protocol.body import Elements, Reader
from service.protocol.datatypes import ITEM_BYTES
from service.protocol.numbers import Numbers
from service.protocol.request import Octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from service.protocol.body import Pieces
    from service.protocol.request import Tensor
    from service.store.manifest import Input

DTYPES: dict[str, Dtype] = {"FP32": "float32", "FP16": "float32", "BF16": "float32", "UINT8": "uint8"}
"""What rows become of a tensor; BYTES are encoded images, and become uint8 too."""

_QUICK_HALF_BYTES = 160 * 1024
_STEP_BYTES = 256 * 1024


def rows_from_tensors(tensors: Sequence[Tensor], spec: Input, max_rows: int, max_pixels: int) -> Rows:
    """Rows of a request's inputs, which must be one, of the name that `spec` has.

    FP32, FP16 and BF16 are network inputs, UINT8 are pixels, both `[N, C, H, W]`; BYTES are N JPEGs or
    PNGs, `[N]` or `[N, 1]`, in JSON as base64. Numbers are read when they are written, images decoded.
    Raises `InvalidTensor` and `InvalidImage`, and `InputTooLarge` for more than `max_rows` rows.
    """
    names = [tensor.name for tensor in tensors]
    if names != [spec.name]:
        got = f"{len(names)} inputs" if len(names) != 1 else tensors[0].at
        raise InvalidTensor(f"expected the one input {spec.name!r}, got {got}")
    tensor = tensors[0]
    if tensor.datatype == "BYTES":
        return rows_from_images(_images(tensor, max_rows), spec, max_rows, max_pixels)
    if tensor.datatype not in DTYPES:
        raise InvalidTensor(f"{tensor.at} is {tensor.datatype}, expected one of {', '.join(DTYPES)}, BYTES")
    if len(tensor.shape) != 4 or list(tensor.shape[1:]) != spec.shape:
        expected = ", ".join(map(str, spec.shape))
        raise InvalidTensor(f"{tensor.at} has shape {list(tensor.shape)}, expected [N, {expected}]")
    return _numeric(tensor, spec, max_rows)


def _numeric(tensor: Tensor, spec: Input, max_rows: int) -> Rows:
    content, dtype = tensor.content, DTYPES[tensor.datatype]
    shape = shape_of(tensor.shape[0], spec.shape, max_rows)
    if isinstance(content, Numbers):
        is_quick = len(content) <= QUICK_BYTES
        return _NumberRows(shape, dtype, is_quick, content, tensor.shape, f"{tensor.at}: data")
    if not isinstance(content, Octets):
        raise InvalidTensor(f"{tensor.at} is {tensor.datatype}, but its data are no numbers")
    expected = int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES[tensor.datatype]
    if len(content) != expected:
        raise InvalidTensor(
            f"{tensor.at} has {len(content)} bytes, expected {expected} of shape {list(shape)}"
        )
    if tensor.datatype in {"FP16", "BF16"}:
        is_quick = expected <= _QUICK_HALF_BYTES
        return _HalfRows(shape, dtype, is_quick, content.pieces, tensor.datatype == "BF16")
    return rows_from_octets(content.pieces, dtype, spec, max_rows)


@dataclass(frozen=True)
class _NumberRows(Rows):
    numbers: Numbers
    told_shape: tuple[int, ...]
    at: str

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        yield from self.numbers.write(self.told_shape, out.reshape(-1), self.at)
        if self.dtype == "float32":
            refuse_unusable(out)


@dataclass(frozen=True)
class _HalfRows(Rows):
    """FP16, or BF16, which is the upper half of a float32."""

    pieces: Pieces
    is_bfloat16: bool

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        body, flat = Reader(self.pieces), out.reshape(-1)
        while body.left:
            halves = b"".join(body.take(_STEP_BYTES))
            step, flat = flat[: len(halves) // 2], flat[len(halves) // 2 :]
            if self.is_bfloat16:
                bits = step.view(np.uint32)
                bits[...] = np.frombuffer(halves, "<u2")
                bits <<= np.uint32(16)
            else:
                step[...] = np.frombuffer(halves, "<f2")
            yield
        refuse_unusable(out)


def _images(tensor: Tensor, max_rows: int) -> Elements | list[bytes]:
    count, content = tensor.shape[0], tensor.content
    if tensor.shape not in {(count,), (count, 1)}:
        raise InvalidTensor(f"{tensor.at} has shape {list(tensor.shape)}, expected [N] or [N, 1] of BYTES")
    shape_of(count, [1, 1, 1], max_rows)
    if isinstance(content, Octets):
        return Elements(content.pieces, count, tensor.at)
    if isinstance(content, Numbers):
        raise InvalidTensor(f"{tensor.at} is BYTES, but its data are no strings")
    is_nested = all(isinstance(item, list) and len(item) == 1 for item in content)
    flat = [item for (item,) in content] if is_nested else content
    if len(flat) != count:
        raise InvalidTensor(f"{tensor.at} has {len(flat)} elements, expected {count}")
    return [from_base64(item, f"{tensor.at}: data[{number}]") for number, item in enumerate(flat)]
