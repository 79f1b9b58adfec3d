"""The arguments of an exported program's calls, as Python has them, in the order of the schemas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from service.errors import InvalidProgram
from service.store.payloads import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch._ops import OpOverload

    from service.store.program_tables import Argument, Name, NamedArgument, Node, OptionalTensor, Symbol

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}


@dataclass(frozen=True)
class Value:
    """A value of the program, by its name."""

    name: str


def resolved(argument: Any, values: Mapping[str, Any]) -> Any:
    """An argument with its values in place of their names."""
    if isinstance(argument, list):
        return [resolved(each, values) for each in argument]
    return values[argument.name] if isinstance(argument, Value) else argument


def by_schema(node: Node, target: OpOverload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = _unrepeated(node.inputs)
    positional, keywords = list[Any](), dict[str, Any]()
    for argument in target._schema.arguments:
        if argument.name not in given and not argument.has_default_value():
            raise InvalidProgram(f"{node.target} has no argument {argument.name!r}")
        chosen = argument.name in given
        value = value_of(given.pop(argument.name)) if chosen else argument.default_value
        if not argument.kwarg_only:
            positional.append(value)
        elif chosen and value is not None:
            keywords[argument.name] = value
    if given:
        raise InvalidProgram(f"{node.target} takes no argument {next(iter(given))[:80]!r}")
    return tuple(positional), keywords


def _unrepeated(inputs: Iterable[NamedArgument]) -> dict[str, Argument]:
    given: dict[str, Argument] = {}
    for one in inputs:
        if one.name in given:
            raise InvalidProgram(f"the argument {one.name[:80]!r} is there twice")
        given[one.name] = one.arg
    return given


def value_of(argument: Argument) -> Any:
    """An argument as Python has it; a device is always the CPU, a layout always strided."""
    given = getattr(argument, argument.kind)
    return _DECODERS.get(argument.kind, _as_it_is)(given)


def _as_it_is(given: Any) -> Any:
    return given


def _nothing(_: Any) -> None:
    return None


def _named(given: Name) -> Value:
    return Value(given.name)


def _known(table: Mapping[int, Any], number: int, what: str) -> Any:
    if number not in table:
        raise InvalidProgram(f"the {what} {number} is not supported")
    return table[number]


def _optional(given: OptionalTensor) -> Value | None:
    return _named(given.as_tensor) if given.as_tensor else None


def _symbol(given: Symbol) -> Value | int:
    return Value(given.as_name) if given.kind == "as_name" else given.as_int


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "as_none": _nothing,
    "as_layout": _nothing,
    "as_device": lambda _: "cpu",
    "as_tensor": _named,
    "as_tensors": lambda given: [_named(each) for each in given],
    "as_optional_tensor": _optional,
    "as_optional_tensors": lambda given: [_optional(each) for each in given],
    "as_sym_int": _symbol,
    "as_sym_bool": _symbol,
    "as_sym_ints": lambda given: [_symbol(each) for each in given],
    "as_scalar_type": lambda number: _known(DTYPES, number, "dtype"),
    "as_memory_format": lambda number: _known(_MEMORY_FORMATS, number, "memory format"),
}
