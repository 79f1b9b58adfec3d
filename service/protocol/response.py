"""The response to infer: tensors as a JSON document, as binary behind it, or some of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from service.protocol.body import write_elements

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class OutputTensor:
    """One output: FP32 of a float32 array, BYTES of UTF-8 strings."""

    name: str
    shape: tuple[int, ...]
    values: np.ndarray | list[str]
    is_binary: bool

    @property
    def datatype(self) -> str:
        """The protocol's name of it."""
        return "FP32" if isinstance(self.values, np.ndarray) else "BYTES"

    def as_bytes(self) -> bytes | memoryview:
        """The binary form; of an array that lies in memory as it is sent no copy."""
        if isinstance(self.values, np.ndarray):
            return np.ascontiguousarray(self.values, "<f4").reshape(-1).view(np.uint8).data
        return write_elements([value.encode() for value in self.values])

    def as_list(self) -> np.ndarray | list[str]:
        """The JSON form, flat, row-major."""
        return np.ravel(self.values) if isinstance(self.values, np.ndarray) else self.values


class Written(NamedTuple):
    """A body, and how many bytes of it are the document where it has a binary tail."""

    content: bytes
    document_bytes: int | None


def write_response(
    model: str, version: int, identity: str | None, outputs: Sequence[OutputTensor]
) -> Written:
    """The whole response; the numbers of a float32 have their shortest digits."""
    root: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if identity is not None:
        root["id"] = identity
    tails: list[bytes | memoryview] = []
    root["outputs"] = [_described(output, tails) for output in outputs]
    document = orjson.dumps(root, option=orjson.OPT_SERIALIZE_NUMPY)
    return Written(b"".join([document, *tails]), len(document) if tails else None)


def classified(logits: np.ndarray, best: np.ndarray, labels: Sequence[str] | None) -> list[str]:
    """`value:index[:label]` of each row of `logits`, `[N, ...]`, at the indices in the same row of `best`."""
    return [
        f"{logits[row, index]:f}:{index}" + (f":{labels[index]}" if labels else "")
        for row, indices in enumerate(best.tolist())
        for index in indices
    ]


def _described(output: OutputTensor, tails: list[bytes | memoryview]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    if output.is_binary:
        tails.append(output.as_bytes())
        described["parameters"] = {"binary_data_size": len(tails[-1])}
    else:
        described["data"] = output.as_list()
    return described
