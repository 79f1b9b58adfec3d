"""Schemas of a request to infer and of its answer, as OpenAPI has them: these routes read raw bodies."""

from __future__ import annotations

from typing import Any

from service.protocol.body import LENGTH_HEADER
from service.protocol.datatypes import DATATYPES
from service.web.schemas_v2 import ProtocolError

_SCALAR = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
_PARAMETERS = {"type": "object", "additionalProperties": _SCALAR}
_DATA = {"type": "array", "items": {}, "description": "Flat, row-major, or nested in the tensor's shape."}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _tensor(datatypes: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            "datatype": {"type": "string", "enum": datatypes},
            "parameters": _PARAMETERS,
            "data": _DATA,
        },
    }


_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            **_PARAMETERS,
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds; 0: none."},
                "binary_data_output": {"type": "boolean"},
            },
        },
        "inputs": {"type": "array", "items": _tensor(list(DATATYPES)), "minItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        **_PARAMETERS,
                        "properties": {
                            "binary_data": {"type": "boolean"},
                            "classification": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}
_RESPONSE = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _tensor(["FP32", "BYTES"])},
    },
}

_LENGTH = {
    "name": LENGTH_HEADER,
    "in": "header",
    "required": False,
    "description": "The bytes of the document, where binary tensors follow it; 0: the body is one FP32 row.",
    "schema": {"type": "integer", "minimum": 0},
}


def documented(*path: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI document says of a request."""
    content = {"application/json": {"schema": _REQUEST}, "application/octet-stream": _BINARY}
    return {
        "requestBody": {"required": True, "content": content},
        "parameters": [*path, _LENGTH],
    }


def responses() -> dict[int | str, dict[str, Any]]:
    """What it says of the answers."""
    written = {"application/json": {"schema": _RESPONSE}, "application/octet-stream": _BINARY}
    errors = (400, 404, 408, 413, 415, 429, 503, 504)
    return {
        200: {"description": "The outputs.", "content": written},
        **{status: {"model": ProtocolError} for status in errors},
    }
