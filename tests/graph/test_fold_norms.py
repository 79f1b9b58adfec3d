"""Every way to write a norm, with ordinary and with extreme statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.network.adopt import FrozenBatchNorm2d
from service.network.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d

from .networks import Net, judged, normal, outcomes, positive, trained


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", normal(features, seed=1))
        self.register_buffer("bias", normal(features, seed=2))
        self.register_buffer("running_mean", normal(features, seed=3))
        self.register_buffer("running_var", positive(features))

    def forward(self, x: Any) -> Any:
        weight, bias, mean, var = (
            getattr(self, name).reshape(1, -1, 1, 1)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class ByTheBook(Frozen):
    """`gamma * (x - mean) / sqrt(var + eps) + beta`, step by step."""

    def forward(self, x: Any) -> Any:
        weight, bias, mean, var = (
            getattr(self, name)[:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
        )
        return weight * ((x - mean) / torch.sqrt(var + 1e-5)) + bias


class Precomputed(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("scale", normal(features, 1, 1))
        self.register_buffer("shift", normal(features, 1, 1, seed=1))

    def forward(self, x: Any) -> Any:
        return x * self.scale + self.shift


def made_here(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    return nn.functional.batch_norm(y, torch.zeros(4), torch.ones(4) * 2)


@pytest.mark.parametrize(
    "norm",
    [
        *(
            nn.BatchNorm2d(4),
            nn.BatchNorm2d(4, affine=False),
            nn.BatchNorm2d(4, eps=0.1),
            nn.SyncBatchNorm(4),
        ),
        *(BatchNorm(4), BatchNorm2d(4), BatchNorm2d(4, affine=False), FrozenBatchNorm2d(4)),
        *(Frozen(4), ByTheBook(4)),
    ],
    ids=repr,
)
def test_a_norm_after_a_convolution_folds_however_it_is_written(norm: nn.Module) -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()))
    assert outcomes(judged(net, 3, 6, 6)) == [("1", "into_producer", "0")]


@pytest.mark.parametrize(
    ("conv", "norm", "axes"),
    [
        (nn.Conv1d(3, 4, 3), BatchNorm1d(4), 1),
        (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), 1),
        (nn.Conv3d(3, 4, 2), BatchNorm3d(4), 3),
        (nn.Linear(3, 4), BatchNorm1d(4), 0),
    ],
    ids=["ours 1d", "torch's 1d", "ours 3d", "ours on vectors"],
)
def test_norms_of_every_rank_fold(conv: nn.Module, norm: nn.Module, axes: int) -> None:
    report = judged(trained(nn.Sequential(conv, norm)), 3, *[5] * axes)
    assert outcomes(report) == [("1", "into_producer", "0")]


def test_a_map_without_a_root_folds_but_is_no_norm() -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 3), Precomputed(4), nn.BatchNorm2d(4), Precomputed(4)))
    assert outcomes(judged(net, 3, 6, 6)) == [("2", "into_producer", "0")]


def test_a_norm_with_statistics_made_in_the_forward_folds() -> None:
    (layer,) = judged(trained(Net(made_here, conv=nn.Conv2d(3, 4, 3))), 3, 6, 6).layers
    assert layer.outcome == "into_producer"


def test_dividing_by_the_root_of_a_number_is_no_norm() -> None:
    def scaled(net: Any, x: Tensor) -> Any:
        return net.conv(x).relu() / torch.sqrt(torch.tensor(64.0))

    assert judged(trained(Net(scaled, conv=nn.Conv2d(3, 4, 3))), 3, 6, 6).norms == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNorm2d, Frozen], ids=["torch's", "ours", "frozen"])
@pytest.mark.parametrize("channels", [1, 6])
def test_one_channel_or_as_many_as_pixels_is_no_ambiguity(norm: Any, channels: int) -> None:
    net = trained(nn.Sequential(nn.Conv2d(channels, channels, 1), norm(channels)))
    assert outcomes(judged(net, channels, 6, 6)) == [("1", "into_producer", "0")]


def test_a_map_along_the_width_is_not_taken_for_channels() -> None:
    net = Net(
        lambda net, x: net.bn(net.conv(x)) * net.width,
        conv=nn.Conv2d(6, 6, 1),
        bn=nn.BatchNorm2d(6),
        width=normal(6),
    )
    assert outcomes(judged(trained(net), 6, 6, 6)) == [("bn", "into_producer", "conv")]


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        ("weight", [-1.5, -1e-3, -20.0, -1.0]),
        ("weight", [0.0, 1.0, 0.0, -1.0]),
        ("weight", [0.0, 0.0, 0.0, 0.0]),
        ("running_var", [0.0, 1e-12, 1e-5, 1.0]),
        ("running_var", [1e12, 1e30, 1.0, 1e-3]),
        ("running_mean", [1e4, -1e4, 3e3, 0.0]),
        ("bias", [1e6, -1e6, 0.0, 1.0]),
    ],
    ids=["negative gamma", "some gamma 0", "every gamma 0", "tiny variance", "huge variance", "mean", "bias"],
)
@pytest.mark.parametrize("relu_between", [False, True], ids=["convolution", "through a ReLU"])
def test_extreme_statistics_stay_exact(tensor: str, values: list[float], relu_between: bool) -> None:
    middle = nn.ReLU() if relu_between else nn.Identity()
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.BatchNorm2d(4)))
    with torch.no_grad():
        getattr(net[2], tensor).copy_(torch.tensor(values))
    (layer,) = judged(net, 3, 6, 6).layers
    assert layer.outcome == "into_producer"
