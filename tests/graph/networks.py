"""Small networks for the tests of the graph, and the judgement of a fold against torch in float64."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from service.graph import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.graph import FoldReport


_M = TypeVar("_M", bound=nn.Module)


class Net(nn.Module):
    """A network from its forward: `Net(lambda net, x: net.bn(net.conv(x)), conv=..., bn=...)`."""

    def __init__(self, answer: Callable[[Any, Tensor], Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.answer = answer
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.answer(self, x)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def positive(*shape: int, seed: int = 0) -> Tensor:
    """Numbers between 0.2 and 2.2, as variances have."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.2


@torch.no_grad()
def trained(net: _M, seed: int = 0) -> _M:
    """`net` in evaluation mode with random weights and statistics, negative gammas among them."""
    for number, parameter in enumerate(net.parameters()):
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(normal(*parameter.shape, seed=seed + number) / math.sqrt(fan_in))
    for number, (name, buffer) in enumerate(net.named_buffers()):
        if name.endswith("running_mean"):
            buffer.copy_(normal(*buffer.shape, seed=seed + 100 + number))
        elif name.endswith("running_var"):
            buffer.copy_(positive(*buffer.shape, seed=seed + 100 + number))
    return net.eval()


@torch.no_grad()
def exact(net: nn.Module, x: Tensor) -> Tensor:
    """The answer of the unfolded network in float64; `net` and `x` stay as they are."""
    with _double_by_default():
        answer: Tensor = copy.deepcopy(net).double()(x.double().clone())
    return answer


def judged(net: nn.Module, *row: int, rows: int = 2) -> FoldReport:
    """Fold `net`, hold its answers against the unfolded network in float64, and return the report.

    The folded network must answer batches of 1 and 5 within 1e-5 or four times the unfolded
    network's own float32 error, name every norm once, and leave the network bit-identical.
    """
    before = copy.deepcopy(net.state_dict())
    folded = fold(net, normal(rows, *row))
    for batch in (1, 5):
        x = normal(batch, *row, seed=batch)
        reference = exact(net, x)
        with torch.no_grad():
            own = relative_error(reference, net(x.clone()))
            answer = folded.module(x.clone())
        assert relative_error(reference, answer) <= max(1e-5, 4 * own)
    assert_same_state(before, net.state_dict())
    names = [layer.name for layer in folded.report.layers]
    assert len(set(names)) == len(names)
    return folded.report


def outcomes(report: FoldReport) -> list[tuple[str, str, str | None]]:
    """What became of every norm: name, outcome, partner."""
    return [(layer.name, layer.outcome, layer.partner) for layer in report.layers]


def relative_error(reference: Tensor, answer: Tensor) -> float:
    """The largest absolute difference over the largest absolute reference value."""
    assert reference.shape == answer.shape
    largest = float(reference.abs().max()) or 1.0
    return float((answer.double() - reference).abs().max()) / largest


def assert_same_state(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """Two state dicts hold the same bits under the same names."""
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor.nan_to_num(), after[name].nan_to_num()), name


@contextmanager
def _double_by_default() -> Iterator[None]:
    """A forward that makes its own constants makes them in float64, too."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
