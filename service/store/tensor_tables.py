"""How an exported program says where its tensors lie, and what all its tables have in common; no torch.

The format is that of torch's `torch/_export/serde/schema.py`, schema version 8. Only what is needed is read.
A key that is not known here may be there only with nothing in it, so that what a later version of torch adds
is refused where it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Size = Annotated[int, Field(ge=0, lt=2**48)]
Text = Annotated[str, Field(max_length=512)]
FileName = Annotated[str, Field(pattern=r"^[a-z_]{1,32}[0-9]{1,9}$")]
Ignored = Any
"""Read by nobody; what could do harm in it is looked for by `service.store.program`."""


class Table(BaseModel):
    """A JSON object with known keys."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _unknown_keys_are_empty(cls, value: Any) -> Any:
        for key, content in value.items() if isinstance(value, dict) else ():
            if key not in cls.model_fields and content not in (None, False, [], {}, ""):
                raise ValueError(f"{str(key)[:80]!r} is not supported")
        return value


class Choice(Table):
    """Exactly one of its keys."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1 or getattr(self, self.kind) is None:
            raise ValueError("exactly one of its kinds must be given")
        return self

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(iter(self.model_fields_set))


class Device(Table):
    """Where a tensor was at export; nothing of it is kept."""

    type: Text
    index: Int64 | None = None


class Expression(Table):
    """A size that depends on the input, as text that nobody evaluates."""

    expr_str: Text
    hint: Ignored = None


class Extent(Choice):
    """A size, a stride or an offset."""

    as_int: Size = 0
    as_expr: Expression | None = None


class TensorMeta(Table):
    """How the elements of a tensor lie in its payload; offsets and strides count elements."""

    dtype: int
    sizes: Annotated[list[Extent], Field(max_length=16)]
    strides: Annotated[list[Extent], Field(max_length=16)]
    storage_offset: Extent
    layout: Literal[7]
    device: Device
    requires_grad: bool = False


class Payload(Table):
    """Where the elements of a stored tensor are."""

    path_name: FileName
    is_param: bool
    tensor_meta: TensorMeta


class Payloads(Table):
    """The whole of a `model_*_config.json`: payloads by the names of the tensors."""

    config: dict[str, Payload]
