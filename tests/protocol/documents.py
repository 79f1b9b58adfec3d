"""Requests as clients write them, by the standard library."""

from __future__ import annotations

import json
from typing import Any

TENSOR: dict[str, Any] = {"name": "image", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}


def document(**changes: Any) -> bytes:
    """A request with one input, changed; None leaves a key out."""
    return written({"inputs": [tensor(**changes)]})


def tensor(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**TENSOR, **changes}.items() if value is not None}


def written(root: Any) -> bytes:
    return json.dumps(root).encode()
