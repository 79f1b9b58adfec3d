"""Requests and responses of the Open Inference Protocol, written and read by hand."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from .server import Service

INFER = "/v2/models/digits/infer"
LENGTH = "Inference-Header-Content-Length"
_TYPES = {np.dtype(np.float32): "FP32", np.dtype(np.float16): "FP16", np.dtype(np.uint8): "UINT8"}


def tensor(array: np.ndarray, **changes: Any) -> dict[str, Any]:
    """The input as JSON has it."""
    given = {"name": "image", "shape": list(array.shape), "datatype": _TYPES[array.dtype]}
    return given | {"data": array.ravel().tolist()} | changes


def binary(content: bytes, shape: Sequence[int], datatype: str, **parameters: Any) -> dict[str, Any]:
    """The input whose bytes follow the document."""
    parameters["binary_data_size"] = len(content)
    return {"name": "image", "shape": list(shape), "datatype": datatype, "parameters": parameters}


def elements(contents: Sequence[bytes]) -> bytes:
    """A BYTES tensor."""
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def body(*inputs: dict[str, Any], tail: bytes = b"", **root: Any) -> tuple[bytes, dict[str, str]]:
    """A whole body and the headers that it needs."""
    document = json.dumps({"inputs": inputs} | root).encode()
    if not tail:
        return document, {"Content-Type": "application/json"}
    return document + tail, {"Content-Type": "application/octet-stream", LENGTH: str(len(document))}


def post(
    service: Service, given: tuple[bytes, dict[str, str]], address: str = INFER, **headers: str
) -> httpx.Response:
    content, needed = given
    plain = {"Accept-Encoding": "identity"}  # httpx would ask for compressed answers otherwise
    return service.http.post(address, content=content, headers=plain | needed | headers)


class Response:
    """A successful answer."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        length = answer.headers.get(LENGTH)
        expected = "application/json" if length is None else "application/octet-stream"
        assert answer.headers["content-type"] == expected
        end = len(answer.content) if length is None else int(length)
        self.root = json.loads(answer.content[:end])
        self._tail = answer.content[end:]
        self.is_binary = [self._reads(output) for output in self.root["outputs"]]
        assert not self._tail

    def _reads(self, output: dict[str, Any]) -> bool:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            assert "data" not in output
            output["data"], self._tail = self._tail[:size], self._tail[size:]
        return size is not None

    @property
    def logits(self) -> np.ndarray:
        """The one output, float32."""
        (output,) = self.root["outputs"]
        assert (output["name"], output["datatype"]) == ("logits", "FP32")
        data = output["data"]
        flat = np.frombuffer(data, "<f4") if isinstance(data, bytes) else np.array(data, np.float32)
        return flat.reshape(output["shape"])
