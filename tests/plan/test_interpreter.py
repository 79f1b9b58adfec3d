"""The graph without Python between its calls computes what the graph computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, fx, nn

from service.graph.capture import capture
from service.plan import interpreter
from service.plan.interpreter import interpreted

from .lowered import assert_exact, inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(inputs(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * self.weight)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "lists of tensors": lambda x: torch.cat([x, x.relu(), 2 * x], 1),
    "lists of numbers": lambda x: x.mean((2, 3), keepdim=True) + x.permute(0, 1, 3, 2),
    "absent numbers": lambda x: x[:, 1:, ::2] + x.mean(),
    "chunks": lambda x: torch.chunk(x, 2, 1)[0] - torch.chunk(x, 2, 1)[1],
    "a split in three": lambda x: torch.split(x, [1, 2, 1], 1)[1].sigmoid(),
    "text": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "pools": lambda x: nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 3, 1, 1), 2),
    "a resize": lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"),
    "softmax": lambda x: x.flatten(1).softmax(-1),
    "a view of the rows": lambda x: x.reshape(x.shape[0], -1),
}
INEXPRESSIBLE: dict[str, Callable[[Tensor], Tensor]] = {
    "a dtype": lambda x: x.to(torch.float64) * 3,
    "two values": lambda x: torch.max(x, 1)[0],
    "arithmetic on sizes": lambda x: x.reshape(x.shape[0] * 2, -1),
}


def graph(name: str) -> fx.GraphModule:
    return capture(Function({**FUNCTIONS, **INEXPRESSIBLE}[name]).eval(), inputs(2, 4, 6, 6)).module


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_calls_give_the_same_answers_for_any_number_of_rows(name: str) -> None:
    module = graph(name)
    run = interpreted(module)
    assert run != module.forward
    for rows in (2, 1, 5, 2):
        x = inputs(rows, 4, 6, 6)
        assert torch.equal(run(x), module(x))


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_cannot_be_expressed_is_left_to_python(name: str) -> None:
    module = graph(name)
    assert interpreted(module) == module.forward


def test_with_a_torch_that_has_no_such_interpreter_python_makes_the_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interpreter, "_NEEDED", (*interpreter._NEEDED, "gone"))
    module = graph("text")
    assert interpreted(module) == module.forward


def test_packed_weights_are_constants_of_the_function() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(128, 3))
    plan = lowered(net, inputs(4, 6, 6))
    assert interpreted(plan.programs[-1].module) != plan.programs[-1].module.forward
    assert_exact(plan, net, inputs(3, 4, 6, 6))


def test_the_setting_of_torchs_executor_is_left_as_it_was() -> None:
    before = torch._C._get_graph_executor_optimize()
    interpreted(graph("text"))(inputs(2, 4, 6, 6))
    assert torch._C._get_graph_executor_optimize() == before
