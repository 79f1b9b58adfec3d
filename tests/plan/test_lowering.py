"""Activations that several calls spell out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lowered import assert_exact, inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable


class Spelled(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("function", "epilogue"),
    [
        (lambda x: x * x.sigmoid(), "swish"),
        (lambda x: x.sigmoid() * x, "swish"),
        (lambda x: x * F.hardsigmoid(x), "hardswish"),
        (lambda x: x * (F.relu6(x + 3) / 6), "hardswish"),
        (lambda x: F.hardtanh(x + 3, 0, 6) / 6 * x, "hardswish"),
        (lambda x: x.clamp(min=0), "relu"),
        (lambda x: x.clamp(0, 6), "hardtanh(0, 6)"),
        (lambda x: x.clamp_min(0), "relu"),
    ],
)
def test_spelled_out_activations_ride_inside_the_convolution(
    function: Callable[[Tensor], Tensor], epilogue: str
) -> None:
    net, x = Spelled(function), inputs(2, 4, 6, 6) * 4
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert [step.epilogue for step in plan.programs[-1].steps] == [epilogue]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (2 * x).sigmoid(),
        lambda x: x * (F.relu6(x + 2) / 6),
        lambda x: x * (F.relu6(x + 3) / 5),
        lambda x: x * (F.relu(x + 3) / 6),
        lambda x: x.clamp(min=0.5),
        lambda x: x.clamp(max=1),
        lambda x: x * x,
    ],
)
def test_what_only_looks_like_an_activation_stays_as_it_is(function: Callable[[Tensor], Tensor]) -> None:
    net, x = Spelled(function), inputs(2, 4, 6, 6) * 4
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert plan.programs[-1].steps[0].epilogue == ""


def test_a_hard_swish_whose_three_is_scaled_is_not_one() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.nn.functional.relu6(torch.add(x, 3, alpha=2)) / 6)

    net, x = nn.Sequential(nn.Conv2d(4, 4, 1), Scaled()), inputs(2, 4, 6, 6) * 4
    assert_exact(lowered(net, x[0]), net, x)
