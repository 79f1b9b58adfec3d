"""Mistakes that the rules once made, one test each; always against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .networks import Net, judged, trained

ROW = (4, 6, 6)


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1)


@torch.no_grad()
def with_gammas(net: nn.Module, norm: nn.BatchNorm2d, gammas: list[float]) -> nn.Module:
    trained(net)
    norm.weight.copy_(torch.tensor(gammas))
    return net


def test_two_maps_for_one_value_that_is_concatenated_twice_do_not_meet() -> None:
    def twice(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return torch.cat([y, y], 1) * net.c

    c = torch.tensor([2.0, 3, 2, 3, 1, 1, 1, 1]).reshape(8, 1, 1)
    assert judged(trained(Net(twice, conv=conv(), c=c)), *ROW).norms == 0


def test_a_scale_does_not_go_into_a_square() -> None:
    def square(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return y * y * net.c

    c = torch.tensor([2.0, 3, 2, 3]).reshape(4, 1, 1)
    assert judged(trained(Net(square, conv=conv(), c=c)), *ROW).norms == 0


@pytest.mark.parametrize("gammas", [[0.0] * 4, [1.0, 1e-39, -1e-39, 2.0], [1.0, 1e-44, 1e-20, 2.0]], ids=str)
def test_gammas_of_0_and_almost_0_pass_a_relu(gammas: list[float]) -> None:
    norm = nn.BatchNorm2d(4)
    (layer,) = judged(with_gammas(nn.Sequential(norm, nn.ReLU(), conv()), norm, gammas), *ROW).layers
    assert layer.outcome == "into_consumer"


@pytest.mark.parametrize(
    "answer",
    [
        lambda net, x: net.bn((y := net.conv(x)).flatten(0, 1).relu().view_as(y)),
        lambda net, x: net.conv((y := net.bn(x)).flatten(0, 1).relu().view_as(y)),
    ],
    ids=["backward", "forward"],
)
def test_a_clamp_of_channels_among_the_rows_is_not_passed(answer: Any) -> None:
    (layer,) = judged(trained(Net(answer, conv=conv(), bn=nn.BatchNorm2d(4))), *ROW).layers
    assert layer.outcome == "kept"


def test_a_norm_that_stays_is_not_taken_in_by_a_later_one() -> None:
    first, second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    net = nn.Sequential(conv(), nn.MaxPool2d(2), first, nn.ChannelShuffle(2), second)
    negative = [-1.0, -2.0, -1.0, -0.5]
    with_gammas(net, first, negative)
    with torch.no_grad():
        second.weight.copy_(torch.tensor(negative))
    assert [layer.outcome for layer in judged(net, *ROW).layers] == ["kept", "kept"]


def test_of_two_bounds_that_cross_the_upper_one_wins() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x).clamp(0.5, -0.5)), conv=conv(), bn=nn.BatchNorm2d(4))
    assert judged(trained(net), *ROW).norms == 1
