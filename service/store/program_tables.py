"""What an exported program says, as strict tables; no torch. `service.store.tensor_tables` says the rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from service.store.tensor_tables import Choice, Device, Ignored, Int64, Table, TensorMeta, Text

_NOT_FINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
Number = Annotated[float, BeforeValidator(lambda v: _NOT_FINITE.get(v, v) if isinstance(v, str) else v)]


class Name(Table):
    """A value, by the name that it was given where it was made."""

    name: Text


class Symbol(Choice):
    """A size or truth that depends on the input, by its name, or a number among such."""

    as_name: Text = ""
    as_int: Int64 = 0


class OptionalTensor(Choice):
    """A value or none."""

    as_tensor: Name | None = None
    as_none: bool = True


class Argument(Choice):
    """One argument of a call, or what a call gives back."""

    as_none: bool = True
    as_tensor: Name | None = None
    as_tensors: list[Name] = Field(default_factory=list)
    as_optional_tensor: OptionalTensor | None = None
    as_optional_tensors: list[OptionalTensor] = Field(default_factory=list)
    as_int: Int64 = 0
    as_ints: list[Int64] = Field(default_factory=list)
    as_float: Number = 0.0
    as_floats: list[Number] = Field(default_factory=list)
    as_bool: bool = False
    as_bools: list[bool] = Field(default_factory=list)
    as_string: Text = ""
    as_sym_int: Symbol | None = None
    as_sym_ints: list[Symbol] = Field(default_factory=list)
    as_sym_bool: Symbol | None = None
    as_scalar_type: Int64 = 0
    as_memory_format: Int64 = 0
    as_layout: Literal[7] = 7
    """Strided; there is no other."""
    as_device: Device | None = None


class NamedArgument(Table):
    """An argument by its name in the operator's schema."""

    name: Text
    arg: Argument
    kind: int | None = None


class Node(Table):
    """One call."""

    target: Text
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str] = Field(default_factory=dict)
    name: Text | None = None


class Graph(Table):
    """The calls, in order."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: Ignored = None
    sym_bool_values: Ignored = None


class UserInput(Table):
    """What is asked or answered."""

    arg: Argument


class ParameterInput(Table):
    """A stored parameter."""

    arg: Name
    parameter_name: Text


class BufferInput(Table):
    """A stored buffer."""

    arg: Name
    buffer_name: Text
    persistent: bool


class ConstantInput(Table):
    """A stored tensor that was no part of the module."""

    arg: Name
    tensor_constant_name: Text


class InputSpec(Choice):
    """What one placeholder of the graph stands for."""

    user_input: UserInput | None = None
    parameter: ParameterInput | None = None
    buffer: BufferInput | None = None
    tensor_constant: ConstantInput | None = None


class OutputSpec(Choice):
    """What one output of the graph is."""

    user_output: UserInput | None = None


class Signature(Table):
    """What goes in and what comes out."""

    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class GraphModule(Table):
    """The graph and its signature."""

    graph: Graph
    signature: Signature
    module_call_graph: Ignored = None


class SchemaVersion(Table):
    """Of the format."""

    major: Literal[8]
    minor: int


class ExportedProgram(Table):
    """The whole of `models/model.json`."""

    graph_module: GraphModule
    opset_version: dict[str, int]
    range_constraints: Ignored = None
    schema_version: SchemaVersion
    verifiers: list[Literal["TRAINING", "ATEN"]] = Field(default_factory=list)
    torch_version: Text = ""
