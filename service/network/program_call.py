"""One call of an exported program: its operator, its arguments by its schema, and what it makes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from service.errors import InvalidProgram
from service.network.program_arguments import Value, by_schema, value_of
from service.store.operators import ATEN, INTEGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from service.store.program_tables import Argument, Node

aten = torch.ops.aten

BATCH_NORM = "torch.ops.aten.batch_norm.default"

_LARGEST_SIZE = 1 << 63
_MOST_SCALED = 1024.0

# What a batch norm is decomposed to reads its vectors without a look at their lengths: the whole norm, which
# looks, takes its place.
_DECOMPOSED_NORM = "torch.ops.aten._native_batch_norm_legit_no_training.default"
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
        results = tuple(map(_result, node.outputs))
        if isinstance(target, OpOverload):
            args, kwargs = by_schema(node, target)
            _check_scales(target, args)
        else:
            args, kwargs = _of_sizes(node), {}
        position = _RANDOM.get(node.target, len(args))
        if any(args[position : position + 1]):
            raise InvalidProgram(f"{node.target} draws random numbers: export the network in evaluation mode")
        if node.target == _DECOMPOSED_NORM:
            *vectors, momentum, eps = args
            norm, args, results = (
                aten.batch_norm.default,
                (*vectors, False, momentum, eps, False),
                results[:1],
            )
            return Call(BATCH_NORM, norm, args, kwargs, results, _scope(node))
        return Call(node.target, target, args, kwargs, results, _scope(node))

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


def _check_scales(target: OpOverload, args: tuple[Any, ...]) -> None:
    """Raise `InvalidProgram` for scales beside an output size that have little to do with it.

    The operators believe them, and read beyond the image for one that is small enough.
    """
    for argument, value in zip(target._schema.arguments, args, strict=False):
        if not argument.name.startswith("scales") or value is None:
            continue
        if not isinstance(value, float) or not 1 / _MOST_SCALED <= value <= _MOST_SCALED:
            raise InvalidProgram(f"{target} has the scale {value}")


def _of_sizes(node: Node) -> tuple[Any, ...]:
    """The arguments of a function of sizes, which must be sizes."""
    wanted = 1 if node.target == "_operator.neg" else 2
    if len(node.inputs) != wanted or {given.arg.kind for given in node.inputs} - {"as_int", "as_sym_int"}:
        raise InvalidProgram(f"{node.target} is for {wanted} whole numbers")
    return tuple(value_of(given.arg) for given in node.inputs)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of sizes that makes nothing but sizes: Python's own repeats texts and grows without end."""

    def of_sizes(*sizes: Any) -> Any:
        if not all(isinstance(size, int | torch.SymInt) for size in sizes):
            raise InvalidProgram(f"_operator.{function.__name__} is for whole numbers")
        made = function(*sizes)
        if isinstance(made, int) and abs(made) >= _LARGEST_SIZE:
            raise InvalidProgram(f"_operator.{function.__name__} makes a size of more than 63 bits")
        return made

    return of_sizes


def _target(name: str) -> Callable[..., Any]:
    """The function behind a name of the list."""
    if name in INTEGER:
        return _bounded(getattr(operator, name.removeprefix("_operator.")))
    if name in ATEN:
        packet, overload = name.removeprefix("torch.ops.aten.").split(".")
        call = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if isinstance(call, OpOverload):
            return call
    raise InvalidProgram(f"this version of torch has no {name[:120]!r}")


def _many(answer: Any) -> Sequence[Any]:
    if not isinstance(answer, list | tuple):  # the rows of a tensor are not several answers
        raise ValueError(f"a call made one {type(answer).__name__} instead of several")  # noqa: TRY004 - see keep
    return answer


def _result(output: Argument) -> str | list[str] | None:
    if output.kind == "as_none":
        return None
    value = value_of(output)
    if isinstance(value, Value):
        return value.name
    if output.kind == "as_tensors":
        return [each.name for each in value]
    raise InvalidProgram(f"a call makes something of the kind {output.kind!r}")


def _scope(node: Node) -> str:
    """The last of `key,path,type;key,path,type`, without the number of the module's call."""
    last = node.metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
    return last[1].partition("@")[0] if len(last) > 2 else ""
