"""Calls that overwrite what nobody reads any more, and those that must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from .lowered import assert_exact, calls, inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable


class Function(nn.Module):
    """`function(pool(x))`: the pool's result is memory of its own, which may be overwritten."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, pooled: bool = True) -> None:
        super().__init__()
        self.function = function
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.pool(x))


def called(function: Callable[[Tensor], Tensor], *, pooled: bool = True) -> list[str]:
    """The calls of the lowered function, behind the pool; its answers are right."""
    net, x = Function(function, pooled=pooled), inputs(3, 4, 6, 6)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    return calls(plan)[int(pooled) :]


@pytest.mark.parametrize(
    ("activation", "call"),
    [
        (nn.ReLU(), "relu_.default"),
        (nn.ReLU6(), "hardtanh_.default"),
        (nn.Hardtanh(-0.5, 0.5), "hardtanh_.default"),
        (nn.Hardswish(), "hardswish_.default"),
        (nn.Hardsigmoid(), "hardsigmoid_.default"),
        (nn.SiLU(), "silu_.default"),
        (nn.Sigmoid(), "sigmoid_.default"),
        (nn.Tanh(), "tanh_.default"),
        (nn.LeakyReLU(0.1), "leaky_relu_.default"),
    ],
    ids=str,
)
def test_an_activation_overwrites_its_input(activation: nn.Module, call: str) -> None:
    assert called(activation) == [call]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.GELU()], ids=str)
def test_the_rows_that_a_caller_gave_are_never_overwritten(activation: nn.Module) -> None:
    (call,) = called(activation, pooled=False)
    assert "_." not in call


def test_a_gate_is_multiplied_into_what_it_gates() -> None:
    assert called(lambda x: x.mean((2, 3), keepdim=True).sigmoid() * x) == [
        "mean.dim",
        "sigmoid_.default",
        "mul_.Tensor",
    ]


def test_a_value_that_is_read_again_is_not_overwritten() -> None:
    assert called(lambda x: x.relu() + x) == ["relu.default", "add_.Tensor"]
    assert called(lambda x: x.tanh() * x.sigmoid()) == ["tanh.default", "sigmoid_.default", "mul_.Tensor"]


def test_a_difference_does_not_change_its_operands_places() -> None:
    assert called(lambda x: 2 * x.relu() - x.tanh())[-1] == "sub_.Tensor"
    assert called(lambda x: x.mean((2, 3), keepdim=True) - x) == ["mean.dim", "sub.Tensor"]
    assert called(lambda x: torch.add(x.mean((2, 3), keepdim=True), x, alpha=3)) == ["mean.dim", "add.Tensor"]


def test_a_value_that_is_broadcast_is_not_overwritten() -> None:
    assert called(lambda x: x.mean((2, 3), keepdim=True) * x.mean(1, keepdim=True))[-1] == "mul.Tensor"


def test_views_of_a_value_are_not_overwritten_through_it() -> None:
    assert called(lambda x: torch.cat([x.relu(), x.transpose(2, 3)], 1))[-2:] == [
        "transpose.int",
        "cat.default",
    ]
    assert called(lambda x: (x.flatten(1).relu(), x.flatten(1))[1] + x.relu().flatten(1))[-1] == "add.Tensor"


def test_a_square_overwrites_its_only_operand() -> None:
    assert called(lambda x: x * x) == ["mul_.Tensor"]


class Kept(nn.Module):
    """A norm with nothing to fold into, and its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.norm = nn.MaxPool2d(2), nn.BatchNorm2d(4)
        for tensor in (self.norm.running_mean, self.norm.weight.data, self.norm.bias.data):
            assert tensor is not None
            tensor.normal_(generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.pool(x)).sigmoid()
        return answer


def test_a_kept_norm_and_its_activation_need_no_memory() -> None:
    net, x = Kept().eval(), inputs(2, 4, 6, 6)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[1:] == ["addcmul.out", "sigmoid_.default"]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("negative", [True, False])
def test_a_clamp_per_channel_with_one_bound_is_a_maximum_or_a_minimum(negative: bool, rows: int) -> None:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.5, -0.5, 0.1, 0.0]))
        norm.weight.mul_(-1 if negative else 1)
    net = nn.Sequential(nn.MaxPool2d(2), norm, nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    x = inputs(rows, 4, 6, 6)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[1] == ("minimum.out" if negative else "maximum.out")
