"""The JSON body: a small object that says what is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidInput
from service.web.bodies import received

if TYPE_CHECKING:
    from starlette.requests import Request

_LARGEST = 4096

WantedT = TypeVar("WantedT", bound=BaseModel)


async def json_body(request: Request, kind: type[WantedT]) -> WantedT:
    """What the body says; an empty one says as much as an empty object. Raises `InvalidInput`."""
    content = b"".join(await received(request))
    if len(content) > _LARGEST:
        raise InvalidInput(f"the body has more than {_LARGEST} bytes")
    try:
        return kind.model_validate_json(content if content.strip() else b"{}")
    except ValidationError as error:
        raise InvalidInput(_why(error, kind)) from None


def _why(error: ValidationError, kind: type[BaseModel]) -> str:
    """What the first wrong key may be, where it is a known one; else the keys. Nothing that was sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["loc"] and first["loc"][0] in kind.model_fields:
        return f"{first['loc'][0]}: {first['msg']}"
    keys = ", ".join(kind.model_fields)
    return f"the body is not the JSON object that this address takes; it may have the keys {keys}"


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """What the documentation says of such a body."""
    return {"requestBody": {"content": {"application/json": {"schema": kind.model_json_schema()}}}}
