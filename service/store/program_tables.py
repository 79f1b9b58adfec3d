"""What an exported program says, as strict tables; no torch.

The format is that of torch's `torch/_export/serde/schema.py`, schema version 8. Only what a program needs to
be computed is read. A key that is not known here may be there only with nothing in it, so that what a later
version of torch adds is refused where it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Size = Annotated[int, Field(ge=0, lt=2**48)]
Text = Annotated[str, Field(max_length=512)]
FileName = Annotated[str, Field(pattern=r"^[a-z_]{1,32}[0-9]{1,9}$")]
_NOT_FINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
Number = Annotated[float, BeforeValidator(lambda v: _NOT_FINITE.get(v, v) if isinstance(v, str) else v)]
Ignored = Any
"""Read by nobody; what could do harm in it is looked for by `service.store.program`."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _unknown_keys_are_empty(cls, value: Any) -> Any:
        for key, content in value.items() if isinstance(value, dict) else ():
            if key not in cls.model_fields and content not in (None, False, [], {}, ""):
                raise ValueError(f"{str(key)[:80]!r} is not supported")
        return value


class _Choice(_Table):
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


class Name(_Table):
    """A value, by the name that it was given where it was made."""

    name: Text


class Symbol(_Choice):
    """A size or truth that depends on the input, by its name, or a number among such."""

    as_name: Text = ""
    as_int: Int64 = 0


class OptionalTensor(_Choice):
    """A value or none."""

    as_tensor: Name | None = None
    as_none: bool = True


class Device(_Table):
    """Where a tensor was at export; nothing of it is kept."""

    type: Text
    index: Int64 | None = None


class Argument(_Choice):
    """One argument of a call, or what a call gives back."""

    as_none: bool = True
    as_tensor: Name | None = None
    as_tensors: list[Name] = []
    as_optional_tensor: OptionalTensor | None = None
    as_optional_tensors: list[OptionalTensor] = []
    as_int: Int64 = 0
    as_ints: list[Int64] = []
    as_float: Number = 0.0
    as_floats: list[Number] = []
    as_bool: bool = False
    as_bools: list[bool] = []
    as_string: Text = ""
    as_sym_int: Symbol | None = None
    as_sym_ints: list[Symbol] = []
    as_sym_bool: Symbol | None = None
    as_scalar_type: Int64 = 0
    as_memory_format: Int64 = 0
    as_layout: Literal[7] = 7
    """Strided; there is no other."""
    as_device: Device | None = None


class NamedArgument(_Table):
    """An argument by its name in the operator's schema."""

    name: Text
    arg: Argument
    kind: int | None = None


class Node(_Table):
    """One call."""

    target: Text
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str] = {}
    name: Text | None = None


class Expression(_Table):
    """A size that depends on the input, as text that nobody evaluates."""

    expr_str: Text
    hint: Ignored = None


class Extent(_Choice):
    """A size, a stride or an offset."""

    as_int: Size = 0
    as_expr: Expression | None = None


class TensorMeta(_Table):
    """How the elements of a tensor lie in its payload; offsets and strides count elements."""

    dtype: int
    sizes: Annotated[list[Extent], Field(max_length=16)]
    strides: Annotated[list[Extent], Field(max_length=16)]
    storage_offset: Extent
    layout: Literal[7]
    device: Device
    requires_grad: bool = False


class Graph(_Table):
    """The calls, in order."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: Ignored = None
    sym_bool_values: Ignored = None


class UserInput(_Table):
    """What is asked or answered."""

    arg: Argument


class ParameterInput(_Table):
    """A stored parameter."""

    arg: Name
    parameter_name: Text


class BufferInput(_Table):
    """A stored buffer."""

    arg: Name
    buffer_name: Text
    persistent: bool


class ConstantInput(_Table):
    """A stored tensor that was no part of the module."""

    arg: Name
    tensor_constant_name: Text


class InputSpec(_Choice):
    """What one placeholder of the graph stands for."""

    user_input: UserInput | None = None
    parameter: ParameterInput | None = None
    buffer: BufferInput | None = None
    tensor_constant: ConstantInput | None = None


class OutputSpec(_Choice):
    """What one output of the graph is."""

    user_output: UserInput | None = None


class Signature(_Table):
    """What goes in and what comes out."""

    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class GraphModule(_Table):
    """The graph and its signature."""

    graph: Graph
    signature: Signature
    module_call_graph: Ignored = None


class SchemaVersion(_Table):
    """Of the format."""

    major: Literal[8]
    minor: int


class ExportedProgram(_Table):
    """The whole of `models/model.json`."""

    graph_module: GraphModule
    opset_version: dict[str, int]
    range_constraints: Ignored = None
    schema_version: SchemaVersion
    verifiers: list[Literal["TRAINING", "ATEN"]] = []
    torch_version: Text = ""


class Payload(_Table):
    """Where the elements of a stored tensor are."""

    path_name: FileName
    is_param: bool
    tensor_meta: TensorMeta


class Payloads(_Table):
    """The whole of a `model_*_config.json`: payloads by the names of the tensors."""

    config: dict[str, Payload]
