"""One call of an exported program: its operator, its arguments by its schema, and what it makes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from service.errors import InvalidProgram
from service.store.operators import ATEN, INTEGER
from service.store.payloads import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from service.store.program_tables import Argument, Name, NamedArgument, Node, OptionalTensor, Symbol

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
# Where an operator that may draw random numbers says whether it does.
_RANDOM = {
    "torch.ops.aten.dropout.default": 2,
    "torch.ops.aten.dropout_.default": 2,
    "torch.ops.aten.feature_dropout.default": 2,
    "torch.ops.aten.alpha_dropout.default": 2,
    "torch.ops.aten.feature_alpha_dropout.default": 2,
    "torch.ops.aten.scaled_dot_product_attention.default": 4,
}


@dataclass(frozen=True)
class Value:
    """A value of the program, by its name."""

    name: str


@dataclass(frozen=True)
class Call:
    """A call that can be made once the values that it reads are there."""

    name: str
    """The operator, as programs spell it."""
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[str | list[str] | None, ...]
    """The names of what it makes; a list for a list of tensors, None for what nobody reads."""
    scope: str
    """The module that made the call at export, by its name; empty for the network itself."""

    @staticmethod
    def of(node: Node) -> Call:
        """The call that a node says; raises `InvalidProgram` where it does not fit its operator."""
        target = _target(node.target)
        if isinstance(target, OpOverload):
            args, kwargs = _by_schema(node, target)
        else:
            args, kwargs = tuple(_value(given.arg) for given in node.inputs), {}
        position = _RANDOM.get(node.target, len(args))
        if any(args[position : position + 1]):
            raise InvalidProgram(f"{node.target} draws random numbers: export the network in evaluation mode")
        return Call(node.target, target, args, kwargs, tuple(map(_result, node.outputs)), _scope(node))

    def read(self) -> Iterator[str]:
        """The names of the values that the call reads."""
        for argument in (*self.args, *self.kwargs.values()):
            for each in argument if isinstance(argument, list) else (argument,):
                if isinstance(each, Value):
                    yield each.name

    def made(self) -> Iterator[str]:
        """The names of the values that it makes."""
        for result in self.results:
            yield from result if isinstance(result, list) else () if result is None else (result,)

    def keep(self, values: dict[str, Any], answer: Any) -> None:
        """Give what the call answered the names of its results; raises `ValueError` where they differ."""
        answers = (answer,) if len(self.results) == 1 else _many(answer)
        for result, each in zip(self.results, answers, strict=True):
            if isinstance(result, list):
                values.update(zip(result, _many(each), strict=True))
            elif result is not None:
                values[result] = each


def resolved(argument: Any, values: Mapping[str, Any]) -> Any:
    """An argument with its values in place of their names."""
    if isinstance(argument, list):
        return [resolved(each, values) for each in argument]
    return values[argument.name] if isinstance(argument, Value) else argument


def _target(name: str) -> Callable[..., Any]:
    """The function behind a name of the list."""
    if name in INTEGER:
        found: Callable[..., Any] = getattr(operator, name.removeprefix("_operator."))
        return found
    if name in ATEN:
        packet, overload = name.removeprefix("torch.ops.aten.").split(".")
        call = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if isinstance(call, OpOverload):
            return call
    raise InvalidProgram(f"this version of torch has no {name[:120]!r}")


def _by_schema(node: Node, target: OpOverload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = _unrepeated(node.inputs)
    positional, keywords = list[Any](), dict[str, Any]()
    for argument in target._schema.arguments:
        if argument.name not in given and not argument.has_default_value():
            raise InvalidProgram(f"{node.target} has no argument {argument.name!r}")
        chosen = argument.name in given
        value = _value(given.pop(argument.name)) if chosen else argument.default_value
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


def _value(argument: Argument) -> Any:
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


def _many(answer: Any) -> Sequence[Any]:
    if not isinstance(answer, list | tuple):  # the rows of a tensor are not several answers
        raise ValueError(f"a call made one {type(answer).__name__} instead of several")  # noqa: TRY004 - see keep
    return answer


def _result(output: Argument) -> str | list[str] | None:
    if output.kind == "as_none":
        return None
    value = _value(output)
    if isinstance(value, Value):
        return value.name
    if output.kind == "as_tensors":
        return [each.name for each in value]
    raise InvalidProgram(f"a call makes something of the kind {output.kind!r}")


def _scope(node: Node) -> str:
    """The last of `key,path,type;key,path,type`, without the number of the module's call."""
    last = node.metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
    return last[1].partition("@")[0] if len(last) > 2 else ""
