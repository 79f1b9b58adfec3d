"""Queries: the parameters of routes that read them themselves, read from an address and documented."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import QueryParams

from service.errors import InvalidQuery
from service.web.problems import sentence, shortened

if TYPE_CHECKING:
    from pydantic import BaseModel

QueryT = TypeVar("QueryT", bound="BaseModel")


def parsed(query_string: bytes, kind: type[QueryT]) -> QueryT:
    """The parameters of a request; raises `InvalidQuery` for those that are unknown, repeated or wrong."""
    return _parsed(query_string, kind)  # type: ignore[return-value]  # the cache forgets the type


def documented(kind: type[BaseModel], body: dict[str, Any], *path: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a route that reads such a body and such parameters; those of its `path` first."""
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in kind.model_json_schema()["properties"].items()
    ]
    return {"requestBody": body, "parameters": [*path, *parameters]}


@lru_cache(maxsize=256)
def _parsed(query_string: bytes, kind: type[BaseModel]) -> BaseModel:
    """Most clients ask the same way again and again."""
    most = len(kind.model_fields)
    if query_string.count(b"&") >= most:
        raise InvalidQuery(f"more than {most} parameters were given")
    given = QueryParams(query_string).multi_items()
    names = [name for name, _ in given]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidQuery(f"parameter given more than once: {', '.join(map(shortened, repeated))}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidQuery(sentence(error.errors())) from None
