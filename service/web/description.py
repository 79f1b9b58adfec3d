"""The description: what `/openapi.json` says of the API where the framework is silent, or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.web.gate import needed
from service.web.problems import MEDIA_TYPE, is_protocol
from service.web.schemas import Problem
from service.web.schemas_v2 import ProtocolError

if TYPE_CHECKING:
    from fastapi import FastAPI

_KEYS = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of the service, where it has any; those of the role admin open everything.",
}
# Whether there are keys is a setting; what changes something is closed where there are none.
_TAKES: dict[str | None, list[dict[str, list[str]]]] = {
    None: [],
    "inference": [{}, {"key": []}],
    "admin": [{"key": []}],
}
_REFUSALS = {"401": "No key that is valid.", "403": "Not for this key, or from this site or host."}


def install(app: FastAPI) -> None:
    """Let `app` describe itself so."""
    describe = app.openapi
    app.openapi = lambda: _completed(describe())  # type: ignore[method-assign]


def _completed(openapi: dict[str, Any]) -> dict[str, Any]:
    """The document, which the framework keeps, with its errors and keys as they are."""
    openapi["components"]["securitySchemes"] = {"key": _KEYS}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            role = needed(method.upper(), path)
            operation["security"] = _TAKES[role]
            operation["responses"] = _answers(operation["responses"], path, role)
    return openapi


def _answers(said: dict[str, Any], path: str, role: str | None) -> dict[str, Any]:
    """Never the framework's own 422; every error in the form that the path has them in; in order."""
    schema = ProtocolError if is_protocol(path) else Problem
    media_type = "application/json" if is_protocol(path) else MEDIA_TYPE
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    refusals = _REFUSALS if role else {}
    errors = {status: answer["description"] for status, answer in said.items() if status >= "4"}
    described = {**errors, **refusals}
    described.pop("422", None)
    fine = {status: answer for status, answer in said.items() if status < "4"}
    return {
        **fine,
        **{status: {"description": described[status], "content": content} for status in sorted(described)},
    }
