"""The observation: the unfolded graph up to the norms that are watched, run in small pieces."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx

from service.graph.precision import in_dtype
from service.graph.stored_tensors import attribute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from service.plan.preprocessing import Preprocessing


class _Step(NamedTuple):
    """One call; values are known by the number of the step that made them."""

    target: Any
    args: Any
    kwargs: Any
    number: int
    dead: tuple[int, ...]
    """Values that nobody reads any more."""
    watched: int | None
    """The norm that reads this value; None for one that no watched norm reads."""


class _Value(int):
    """A value's number among a call's arguments."""


class Observation:
    """Runs rows as far as the last watched norm, in float32; not thread-safe, the engine's thread owns it.

    It shares the captured network's tensors and keeps only those that it reads. A norm that is called
    several times has one mean and variance, over all its calls.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        watched: Sequence[Sequence[fx.Node]],
        preprocessing: Preprocessing,
        device: torch.device,
    ) -> None:
        """`watched`: for each norm the nodes that it reads."""
        self._preprocessing = preprocessing
        self._device = device
        self._norms = len(watched)
        readers = {node: number for number, nodes in enumerate(watched) for node in nodes}
        self._tensors, self._steps, self._input = _compiled(module, readers, device)
        (given,) = module.graph.find_nodes(op="placeholder")
        self._reads_input = readers.get(given)
        # The mutable state: the rows that are under way, how far they are, and what the norms have seen.
        self._rows = 0
        self._next = len(self._steps)
        self._values: dict[int, Any] = {}
        self._seen: list[list[tuple[Tensor, Tensor]]] = []

    def another(self) -> Observation:
        """One more over the same tensors, for rows of its own."""
        made = copy.copy(self)
        made.forget()
        return made

    @property
    def nbytes(self) -> int:
        """Of the tensors that it keeps."""
        return sum({t.untyped_storage().data_ptr(): t.nbytes for t in self._tensors.values()}.values())

    @property
    def is_running(self) -> bool:
        """Whether rows are under way."""
        return self._next < len(self._steps)

    @torch.inference_mode()
    def begin(self, rows: np.ndarray) -> None:
        """Take rows, in place of those under way: `uint8` pixels or `float32` network inputs, `[N, ...]`."""
        given = torch.from_numpy(rows)
        inputs = self._preprocessing.normalised(given) if given.dtype == torch.uint8 else given
        inputs = inputs.to(self._device)
        self._values = {**self._tensors, self._input: inputs}
        self._rows, self._next = len(rows), 0
        self._seen = [[] for _ in range(self._norms)]
        if self._reads_input is not None:
            self._seen[self._reads_input].append(_row_moments(inputs, len(rows)))

    @torch.inference_mode()
    def run(self, until: float) -> None:
        """Make calls until that moment of the monotonic clock, at least one."""
        while self.is_running:
            self._call(self._steps[self._next])
            self._next += 1
            if time.monotonic() >= until:
                return

    @torch.inference_mode()
    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows that have come through: the mean and the variance over each row's pixels, `[N, C]`.

        The channels of all watched norms stand one behind the other.
        """
        pairs = [_over_calls(calls) for calls in self._seen]
        self.forget()
        mean, var = (torch.cat(part, 1).cpu().numpy() for part in zip(*pairs, strict=True))
        return mean, var

    def forget(self) -> None:
        """Let go of the rows that are under way."""
        self._values, self._seen, self._next = {}, [], len(self._steps)

    def _call(self, step: _Step) -> None:
        args, kwargs = fx.node.map_aggregate((step.args, step.kwargs), self._read)
        value = self._values[step.number] = step.target(*args, **kwargs)
        if step.watched is not None:
            self._seen[step.watched].append(_row_moments(value, self._rows))
        for number in step.dead:
            self._values.pop(number, None)

    def _read(self, argument: Any) -> Any:
        return self._values[argument] if type(argument) is _Value else argument


def _compiled(
    module: fx.GraphModule, readers: Mapping[fx.Node, int], device: torch.device
) -> tuple[dict[int, Tensor], list[_Step], int]:
    """The stored tensors, the calls and the input, by number; only what the readers' values need."""
    needed = _needed(readers)
    nodes = [node for node in module.graph.nodes if node in needed]
    numbers = {node: number for number, node in enumerate(nodes)}
    (given,) = (node for node in module.graph.nodes if node.op == "placeholder")
    tensors = {
        numbers[node]: _in_float32(attribute(module, str(node.target))).to(device)
        for node in nodes
        if node.op == "get_attr"
    }
    last = {source: node for node in nodes for source in node.all_input_nodes}
    steps = []
    for node in nodes:
        if node.op != "call_function":
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _Value(numbers[n]))
        args, kwargs = in_dtype(args, torch.float32), in_dtype(kwargs, torch.float32)
        dead = tuple(numbers[n] for n in node.all_input_nodes if last[n] is node and n.op != "get_attr")
        unread = () if node in last else (numbers[node],)
        steps.append(_Step(node.target, args, kwargs, numbers[node], dead + unread, readers.get(node)))
    return tensors, steps, numbers.get(given, -1)


def _needed(readers: Mapping[fx.Node, int]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    pending = list(readers)
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending += node.all_input_nodes
    return needed


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _row_moments(value: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over each row's pixels, `[N, C]`, of `[N, C, ...]` or of several such a row."""
    pixels = value.float().reshape(len(value), value.shape[1], -1)  # [N, C, H * W]
    if len(value) != rows:
        pixels = pixels.reshape(rows, -1, *pixels.shape[1:]).transpose(1, 2).flatten(2)
    mean = pixels.mean(2, keepdim=True)
    # Not var_mean, which takes ten times as long on a CPU.
    return mean.squeeze(2), (pixels - mean).square_().mean(2)


def _over_calls(calls: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean and variance over the pixels of all calls together."""
    if len(calls) == 1:
        return calls[0]
    mean, var = (torch.stack(part) for part in zip(*calls, strict=True))
    return mean.mean(0), var.mean(0) + mean.var(0, correction=0)
