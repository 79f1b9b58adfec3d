"""The CUDA plan without a CUDA device: which calls become cuDNN's, and what these calls mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph.capture import capture

from .lowered import assert_exact, biases, calls, fused_for_cudnn, inputs, lowered_for_cudnn, shown

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]
FUSABLE: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "pointwise": (nn.Conv2d(16, 24, 1), (16, 7, 5)),
    "3x3": (nn.Conv2d(3, 8, 3, padding=1), (3, 12, 12)),
    "without bias": (nn.Conv2d(8, 8, 3, bias=False), (8, 9, 9)),
    "strided": (nn.Conv2d(8, 16, (3, 5), stride=(2, 1), padding=(1, 2)), (8, 11, 10)),
    "dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2), (8, 10, 10)),
    "same": (nn.Conv2d(8, 8, (3, 1), padding="same", dilation=2), (8, 9, 9)),
    "valid": (nn.Conv2d(8, 8, 3, padding="valid"), (8, 9, 9)),
    "one pixel": (nn.Conv2d(32, 8, 1), (32, 1, 1)),
    "one channel": (nn.Conv2d(1, 1, 3, padding=1), (1, 6, 6)),
    "volume": (nn.Conv3d(4, 8, 3, padding=1), (4, 5, 6, 7)),
}
OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "grouped": (nn.Conv2d(12, 18, 3, padding=1, groups=3), (12, 8, 8)),
    "depthwise": (nn.Conv2d(16, 16, 5, padding=2, groups=16), (16, 9, 9)),
    "same, one more zero behind": (nn.Conv2d(8, 8, 2, padding="same"), (8, 9, 9)),
    "transposed": (nn.ConvTranspose2d(8, 8, 2, stride=2), (8, 5, 5)),
    "of one axis": (nn.Conv1d(8, 8, 3, padding=1), (8, 9)),
    "product": (nn.Linear(20, 12), (20,)),
}


class Sum(nn.Module):
    """`after(first(x) + second(x))`."""

    def __init__(self, first: nn.Module, second: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.after = first, second, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.after(self.first(x) + self.second(x))
        return total


class Function(nn.Module):
    """`function(conv(x), x)` of a convolution that keeps the shape."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x), x)


# A convolution and its ReLU


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("case", FUSABLE)
def test_a_convolution_and_its_relu_are_one_call(case: str, rows: int, precision: torch.dtype) -> None:
    layer, shape = FUSABLE[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(rows, *shape)
    plan = lowered_for_cudnn(net, x[0], precision)
    assert_exact(plan, net, x)
    assert calls(plan) == ["cudnn_convolution_relu.default"]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("case", OTHERS)
def test_what_cudnn_is_not_known_to_fuse_stays_aten(case: str, rows: int) -> None:
    layer, shape = OTHERS[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(rows, *shape)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert {step.backend for step in plan.programs[-1].steps} == {"aten"}
    assert calls(plan)[-1] == "relu_.default"


@pytest.mark.parametrize(
    "activation",
    [nn.Identity(), nn.Hardtanh(-1, 1), nn.Hardtanh(0.1, 1), nn.Hardswish(), nn.LeakyReLU(0.1), nn.GELU()],
    ids=str,
)
def test_a_convolution_without_a_relu_stays_as_it_is(activation: nn.Module) -> None:
    net, x = nn.Sequential(nn.Conv2d(4, 4, 3), activation), inputs(3, 4, 6, 6) * 4
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert {step.backend for step in plan.programs[-1].steps} == {"aten"}
    assert calls(plan)[0] == "conv2d.default"


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("clamp", [nn.ReLU6(), nn.Hardtanh(0, 0.5)], ids=str)
def test_a_clamp_from_zero_stays_behind_a_relu_that_changes_nothing_for_it(
    clamp: nn.Module, precision: torch.dtype
) -> None:
    net, x = nn.Sequential(nn.Conv2d(4, 4, 3), clamp, nn.Conv2d(4, 2, 1)), inputs(3, 4, 6, 6) * 4
    plan = lowered_for_cudnn(net, x[0], precision)
    assert_exact(plan, net, x)
    assert calls(plan) == ["cudnn_convolution_relu.default", "hardtanh_.default", "conv2d.default"]


@pytest.mark.parametrize("spelled", [lambda y, _: y.clamp(min=0), lambda y, _: y.clamp_min(0)])
def test_a_relu_may_be_spelled_as_a_clamp(spelled: Callable[[Tensor, Tensor], Tensor]) -> None:
    net, x = Function(spelled), inputs(2, 4, 6, 6)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan) == ["cudnn_convolution_relu.default"]


def test_a_convolution_that_is_read_before_its_relu_stays_as_it_is() -> None:
    net, x = Function(lambda y, _: y.relu() * y.tanh()), inputs(2, 4, 6, 6)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[0] == "conv2d.default"


# Sums


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("case", FUSABLE)
def test_a_sum_and_its_relu_ride_inside_the_later_of_two_convolutions(
    case: str, rows: int, precision: torch.dtype
) -> None:
    layer, shape = FUSABLE[case]
    net, x = Sum(nn.Sequential(nn.Tanh(), layer), layer, nn.ReLU()), inputs(rows, *shape)
    plan = lowered_for_cudnn(net, x[0], precision)
    assert_exact(plan, net, x)
    assert shown(plan)[1:] == [f"aten conv{x.dim() - 2}d", f"cudnn conv{x.dim() - 2}d + add, relu"]
    assert calls(plan)[2] == "cudnn_convolution_add_relu.default"


@pytest.mark.parametrize("after", [nn.Identity(), nn.Hardtanh(-1, 1), nn.Sigmoid()], ids=str)
def test_a_sum_without_a_relu_stays_as_it_is(after: nn.Module) -> None:
    net, x = Sum(nn.Identity(), nn.Conv2d(4, 4, 1), after), inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[:2] == ["conv2d.default", "add_.Tensor"]


@pytest.mark.parametrize(
    "function",
    [
        lambda y, x: (y + F.adaptive_avg_pool2d(x, 1)).relu(),
        lambda y, x: (y + x.mean(0, keepdim=True) * 0).relu(),
        lambda y, x: torch.add(y, x.tanh(), alpha=2).relu(),
        lambda y, x: (y + y).relu(),
        lambda y, x: (y - x).relu(),
    ],
    ids=["of one pixel", "of one row", "scaled", "of the same", "a difference"],
)
def test_a_sum_that_the_operator_does_not_compute_stays_as_it_is(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    net, x = Function(function), inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[-1] == "relu_.default"
    assert not [name for name in calls(plan) if "cudnn" in name]


def test_a_sum_with_the_convolutions_own_input_leaves_the_input_alone() -> None:
    net, x = Sum(nn.Identity(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()), inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(nn.Sequential(nn.MaxPool2d(1), net, nn.ReLU6()), x[0])
    assert_exact(plan, nn.Sequential(net, nn.ReLU6()), x)
    assert calls(plan) == ["max_pool2d.default", "cudnn_convolution_add_relu.default", "hardtanh_.default"]


def test_a_clamp_from_zero_stays_behind_a_sum_too() -> None:
    net, x = Sum(nn.Identity(), nn.Conv2d(4, 4, 1), nn.ReLU6()), inputs(3, 4, 5, 5) * 4
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan) == ["cudnn_convolution_add_relu.default", "hardtanh_.default"]


def test_a_summand_that_is_read_again_is_not_overwritten() -> None:
    class ReadAgain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.stem(x)
            total: Tensor = (self.conv(x) + y).relu()
            return total * y.sigmoid()

    net, x = ReadAgain(), inputs(2, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[1:] == ["cudnn_convolution_add_relu.default", "sigmoid_.default", "mul_.Tensor"]


# The bias of a convolution that is added


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("own", [True, False])
def test_the_call_that_adds_a_convolution_takes_over_its_bias(own: bool, precision: torch.dtype) -> None:
    second = nn.Sequential(nn.Tanh(), nn.Conv2d(4, 6, 1, bias=own))
    net = Sum(nn.Conv2d(4, 6, 3, padding=1), second, nn.ReLU())
    x = inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0], precision)
    assert_exact(plan, net, x)
    assert biases(plan) == [False, True]


def test_the_bias_of_a_convolution_that_others_read_stays_there() -> None:
    class ReadTwice(Sum):
        def forward(self, x: Tensor) -> Tensor:
            first: Tensor = self.first(x)
            total: Tensor = (first + self.second(x)).relu()
            return total * first

    net, x = ReadTwice(nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)), inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert biases(plan) == [True, True]


def test_a_bias_that_two_convolutions_share_is_taken_from_one_of_them_only() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            first: Tensor = self.conv(x).sigmoid()
            total: Tensor = (self.conv(first) + self.last(x)).relu()
            return total

    net, x = Shared(), inputs(3, 4, 5, 5)
    plan = lowered_for_cudnn(net, x[0])
    assert_exact(plan, net, x)
    assert biases(plan) == [True, False, True]


class Computed(nn.Module):
    """A convolution whose bias is computed whenever it is called, unless a fold evaluates it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv.bias is not None
        return F.conv2d(x, self.conv.weight, self.conv.bias.exp())


@pytest.mark.parametrize("own", [True, False])
def test_a_bias_that_is_computed_stays_where_it_is(own: bool) -> None:
    plain = nn.Sequential(nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1))
    net = Sum(plain, Computed(), nn.ReLU()) if own else Sum(Computed(), plain, nn.ReLU())
    x = inputs(3, 4, 5, 5)
    plan = fused_for_cudnn(capture(net, x).module, 4, torch.float32)
    assert_exact(plan, net, x)
    assert biases(plan) == [True, True]
