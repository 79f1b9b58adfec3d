"""The network of an exported program: its calls, one by one, over its stored tensors.

Built from the tables that `service.store.program` has vetted. Modules stand where the program's names say
that they stood, and hold their tensors; a norm of the program is one of our layers again, so that it is
found, named and shown as any other.
"""

from __future__ import annotations

import operator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from service.errors import InvalidProgram
from service.network.batch_norm import BatchNorm
from service.network.program_arguments import Value, resolved
from service.network.program_call import BATCH_NORM, Call
from service.store.payloads import tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.program import Program

_DEEPEST = 32
_MOST_MODULES = 50_000
# What export assumed of sizes; the network is captured again, and then export looks for itself.
_ASSERTIONS = {
    "torch.ops.aten._assert_scalar.default",
    "torch.ops.aten._assert_tensor_metadata.default",
    "torch.ops.aten.sym_constrain_range_for_size.default",
    "torch.ops.aten.sym_constrain_range.default",
}
_VECTORS = ("weight", "bias", "running_mean", "running_var")


class Scope(nn.Module):
    """A module of the original network by its name: it holds its tensors, and makes its calls."""

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `call` answers; a capture then says that this module called it."""
        return call(*args, **kwargs)


class _Step(NamedTuple):
    call: Call
    module: str
    """Whose forward it is, or "" for the network's own."""
    is_norm: bool


class ProgramNetwork(nn.Module):
    """A program as a module, in evaluation mode: float32 `[N, ...]` to what the program answers."""

    def __init__(self, program: Program) -> None:
        """Build it on the CPU; raises `InvalidProgram` for a call that does not fit."""
        super().__init__()
        self._input, self._output = program.input, program.output
        self._stored_names = dict(program.stored)
        self._steps: list[_Step] = []
        self._modules_made = 0
        for name, tensor in tensors(program).items():
            _store(self, name, tensor)
        calls = [Call.of(node) for node in program.graph.nodes if node.target not in _ASSERTIONS]
        _check_order(calls, {*program.stored, program.input}, program.output)
        self._steps = [self._step(call) for call in calls]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The program's answer to x, float32 `[N, ...]`."""
        values: dict[str, Any] = {self._input: x}
        for name, path in self._stored_names.items():
            values[name] = operator.attrgetter(path)(self)
        for step in self._steps:
            args = [resolved(argument, values) for argument in step.call.args]
            kwargs = {key: resolved(argument, values) for key, argument in step.call.kwargs.items()}
            step.call.keep(values, self._answer(step, args, kwargs))
        answer: Tensor = values[self._output]
        return answer

    def _answer(self, step: _Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if not step.module:
            return step.call.target(*args, **kwargs)
        module = self.get_submodule(step.module)
        if not step.is_norm:
            return module(step.call.target, *args, **kwargs)
        return module(args[0])

    def _step(self, call: Call) -> _Step:
        norm = self._norm(call)
        return _Step(call, norm, True) if norm else _Step(call, self._scope(call.scope), False)

    def _scope(self, path: str) -> str:
        """The path, with a module there to make calls; "" where there can be none."""
        try:
            return path if path and isinstance(_module(self, path), Scope) else ""
        except InvalidProgram:
            return ""

    def _norm(self, call: Call) -> str:
        """The path of the layer of ours that a call is; "" for any other call."""
        if (
            call.name != BATCH_NORM
            or call.args[5]
            or any(not isinstance(each, Value | None) for each in call.args[1:5])
        ):
            return ""
        named = [self._stored_names.get(each.name, "") if each else None for each in call.args[1:5]]
        path = (named[2] or "").rpartition(".")[0]
        expected = [f"{path}.{vector}" for vector in _VECTORS]
        if not path or any(name not in {None, whole} for name, whole in zip(named, expected, strict=True)):
            return ""
        momentum, eps = call.args[6:8]
        return path if _becomes_norm(self, path, momentum, eps, affine=named[0] is not None) else ""


def _check_order(calls: list[Call], made: set[str], output: str) -> None:
    for call in calls:
        for name in call.read():
            if name not in made:
                raise InvalidProgram(f"{call.name} reads {name[:80]!r} before it is made")
        for name in call.made():
            if name in made:
                raise InvalidProgram(f"the value {name[:80]!r} is made twice")
            made.add(name)
    if output not in made:
        raise InvalidProgram("nothing makes its output")


def _store(network: ProgramNetwork, name: str, tensor: Tensor) -> None:
    """Keep a tensor under its name; raises `InvalidProgram` for a name that no module's tensor could have."""
    path, _, leaf = name.rpartition(".")
    if leaf.startswith("__"):
        raise InvalidProgram(f"no stored tensor can have the name {name[:80]!r}")
    owner = _module(network, path) if path else network
    try:
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)
    except KeyError:
        raise InvalidProgram(f"no stored tensor can have the name {name[:80]!r}") from None


def _module(network: ProgramNetwork, path: str) -> nn.Module:
    """The module at a path, made where there is none."""
    parts = path.split(".")
    module: nn.Module = network
    if len(parts) > _DEEPEST or any(part.startswith("__") for part in parts):
        raise InvalidProgram(f"no module can have the name {path[:80]!r}")
    for part in parts:
        if part not in module._modules:
            network._modules_made += 1
            if network._modules_made > _MOST_MODULES:
                raise InvalidProgram(f"it has more than {_MOST_MODULES} modules")
            try:
                module.add_module(part, Scope())
            except KeyError:
                raise InvalidProgram(f"no module can have the name {path[:80]!r}") from None
        module = module.get_submodule(part)
    return module


def _becomes_norm(network: nn.Module, path: str, momentum: object, eps: object, *, affine: bool) -> bool:
    """Put a layer of ours where a module holds nothing but a norm's tensors; whether one is there."""
    module = network.get_submodule(path)
    if not isinstance(eps, float) or not isinstance(momentum, float):
        return False
    if isinstance(module, BatchNorm):
        return module.eps == eps and module.affine == affine
    held = dict(chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)))
    vectors = [held[name] for name in _VECTORS if name in held]
    if held.keys() - {*_VECTORS, "num_batches_tracked"} or len({tuple(v.shape) for v in vectors}) != 1:
        return False
    if vectors[0].dim() != 1 or ("weight" in held) != affine:
        return False
    # A norm without a momentum, whose statistics are a cumulative average, is exported with 0.
    norm = BatchNorm(len(vectors[0]), eps, momentum or None, affine, device="meta")
    norm._parameters = {"weight": None, "bias": None, **module._parameters}
    norm._buffers = {"num_batches_tracked": None, **module._buffers}
    for name in module._buffers.keys() & {"weight", "bias"}:
        del norm._parameters[name]  # a frozen norm's are buffers
    norm._modules = dict(module._modules)
    parent, _, leaf = path.rpartition(".")
    network.get_submodule(parent)._modules[leaf] = norm
    return True
