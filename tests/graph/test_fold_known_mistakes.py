"""Wrong results of other engines, one regression test each; ours must be right.

Measured on torch 2.13: inductor's freezing, torch.fx's `fuse`, torch.ao's `fuse_fx`, TorchScript's
freezing, efficient_conv_bn_eval and torchao each fail at least one of these without a word.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Net, judged, outcomes, trained


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("channels", [4, 8])
def test_transposed_convolution_with_as_many_channels_in_as_out(groups: int, channels: int) -> None:
    conv = nn.ConvTranspose2d(channels, channels, 3, stride=2, groups=groups)
    report = judged(trained(nn.Sequential(conv, nn.BatchNorm2d(channels))), channels, 5, 5)
    assert outcomes(report) == [("1", "into_producer", "0")]


def test_grouped_transposed_convolution_with_other_channels_out() -> None:
    conv = nn.ConvTranspose2d(4, 6, 2, groups=2)
    report = judged(trained(nn.Sequential(conv, nn.BatchNorm2d(6))), 4, 5, 5)
    assert outcomes(report) == [("1", "into_producer", "0")]


def test_a_convolution_called_twice_with_its_own_norm_each_time() -> None:
    net = Net(
        lambda net, x: net.second(net.conv(net.first(net.conv(x)).relu())),
        conv=nn.Conv2d(4, 4, 3, padding=1),
        first=nn.BatchNorm2d(4),
        second=nn.BatchNorm2d(4),
    )
    assert outcomes(judged(trained(net), 4, 6, 6)) == [
        ("first", "into_producer", "conv"),
        ("second", "into_producer", "conv"),
    ]


@pytest.mark.parametrize("normed", [0, 1], ids=["first call", "second call"])
def test_a_convolution_called_twice_with_a_norm_on_one_call(normed: int) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        for call in range(2):
            x = net.conv(x)
            x = (net.norm(x) if call == normed else x).relu()
        return x

    net = Net(answer, conv=nn.Conv2d(4, 4, 3, padding=1), norm=nn.BatchNorm2d(4))
    assert outcomes(judged(trained(net), 4, 6, 6)) == [("norm", "into_producer", "conv")]


def test_a_convolution_called_on_two_branches() -> None:
    net = Net(
        lambda net, x: net.left(net.conv(x)) + net.right(net.conv(x * 2)) + net.conv(x / 2),
        conv=nn.Conv2d(4, 4, 3),
        left=nn.BatchNorm2d(4),
        right=nn.BatchNorm2d(4),
    )
    assert [outcome for _, outcome, _ in outcomes(judged(trained(net), 4, 6, 6))] == ["into_producer"] * 2


def test_a_block_called_twice_is_two_norms() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    assert outcomes(judged(trained(nn.Sequential(block, block)), 4, 6, 6)) == [
        ("0.1", "into_producer", "0.0"),
        ("0.1@1", "into_producer", "0.0"),
    ]


@pytest.mark.parametrize("length", [4, 5])
def test_linear_over_the_last_axis_and_a_norm_over_axis_1(length: int) -> None:
    net = trained(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(length)))
    (layer,) = judged(net, length, 3).layers
    assert layer.outcome == "kept"
    assert layer.reason.startswith("it does not act on the output channels of 0")


def test_linear_over_the_last_axis_and_a_norm_over_that_axis() -> None:
    net = Net(
        lambda net, x: net.bn(net.fc(x).transpose(1, 2)).transpose(1, 2),
        fc=nn.Linear(3, 4),
        bn=nn.BatchNorm1d(4),
    )
    assert len(judged(trained(net), 4, 3).layers) == 1


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_stride_padding_dilation_and_groups_stay(mode: Any) -> None:
    conv = nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode=mode)
    report = judged(trained(nn.Sequential(conv, nn.BatchNorm2d(4))), 4, 9, 9)
    assert outcomes(report) == [("1", "into_producer", "0")]


def test_keyword_arguments_of_a_functional_convolution_stay() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = F.conv2d(x, bias=net.conv.bias, weight=net.conv.weight, groups=2, dilation=2, padding="same")
        return net.bn(y)

    net = Net(answer, conv=nn.Conv2d(4, 4, 3, groups=2), bn=nn.BatchNorm2d(4))
    assert outcomes(judged(trained(net), 4, 6, 6)) == [("bn", "into_producer", "conv")]


def test_weights_shared_by_two_layers_are_scaled_once_each() -> None:
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, padding=1)
    second.weight = first.weight
    net = trained(nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4)))
    assert [(name, outcome) for name, outcome, _ in outcomes(judged(net, 4, 6, 6))] == [
        ("1", "into_producer"),
        ("4", "into_producer"),
    ]


def test_layers_with_shared_weights_are_partners_by_their_own_names() -> None:
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    second.weight = first.weight
    net = trained(nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4)))
    assert [partner for _, _, partner in outcomes(judged(net, 4, 6, 6))] == ["0", "3"]


def test_a_running_variance_beyond_float16_survives() -> None:
    net = trained(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net.state_dict()["0.weight"].mul_(300)
        net.state_dict()["1.running_var"].fill_(90_000.0)
    assert outcomes(judged(net, 4, 6, 6)) == [("1", "into_producer", "0")]
