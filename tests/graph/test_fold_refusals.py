"""One caller's answer never depends on another's input: such networks are refused, by name if possible."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.errors import ModelRefused
from service.graph import fold
from service.network.batch_norm import BatchNorm2d

from .networks import Net, judged, normal, trained


def refusal(net: nn.Module, *row: int) -> str:
    with pytest.raises(ModelRefused) as refused:
        fold(net, normal(2, *row))
    return str(refused.value)


class AlwaysTraining(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4, track_running_stats=False), AlwaysTraining(4)], ids=["untracked", "training"]
)
def test_norms_with_batch_statistics_are_refused_by_name(norm: nn.Module) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU(), nn.BatchNorm2d(4))
    message = refusal(trained(Net(lambda net, x: net.body(x), body=body)), 3, 4, 4)
    assert message.startswith("norms use batch statistics at inference (body.1): ")


def test_every_norm_with_batch_statistics_is_named() -> None:
    def untracked() -> nn.Module:
        return nn.BatchNorm2d(3, track_running_stats=False)

    assert "(0, 2)" in refusal(trained(nn.Sequential(untracked(), nn.ReLU(), untracked())), 3, 4, 4)


def test_they_are_refused_by_name_after_a_decomposition_too() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = x.clone()
        y[:, 0] = 0
        return net.bn(y)

    net = trained(Net(answer, bn=nn.BatchNorm2d(3, track_running_stats=False)))
    assert "(bn)" in refusal(net, 3, 4, 4)


def hand_written(net: Any, x: Tensor) -> Any:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5)


def softmax_over_the_batch(net: Any, x: Tensor) -> Any:
    return torch.softmax(x, 0)


def first_row_for_everybody(net: Any, x: Tensor) -> Any:
    return x + x[:1]


@pytest.mark.parametrize(
    "answer",
    [hand_written, softmax_over_the_batch, first_row_for_everybody],
    ids=lambda answer: answer.__name__,
)
def test_answers_that_depend_on_other_rows_are_refused(answer: Any) -> None:
    assert refusal(Net(answer), 3, 4, 4).startswith("an answer depends on the other rows of its batch")


def test_our_norm_without_running_statistics_is_refused() -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNorm2d(4, track_running_stats=False)))
    assert "batch statistics" in refusal(net, 3, 4, 4)


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4])], ids=repr
)
def test_norms_over_one_row_alone_are_welcome(norm: nn.Module) -> None:
    assert judged(trained(nn.Sequential(nn.Conv2d(3, 4, 1), norm)), 3, 4, 4).norms == 0


@pytest.mark.parametrize("answer", [lambda net, x: net.head(x)[:, 0], lambda net, x: net.head(x).sum(1)])
def test_a_network_may_answer_one_number_a_row(answer: Any) -> None:
    judged(trained(Net(answer, head=nn.Linear(3, 2))), 3)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("tensor", ["running_mean", "running_var", "weight", "bias"])
def test_a_norm_with_a_number_that_is_none_is_refused(tensor: str, broken: float) -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net.state_dict()[f"1.{tensor}"][2] = broken
    if (tensor, broken) == ("running_var", float("inf")):
        judged(net, 3, 4, 4)  # a dead channel, in torch as well
    else:
        refusal(net, 3, 4, 4)


def test_a_refusal_of_numbers_that_are_none_does_not_blame_the_batch() -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net.state_dict()["1.running_mean"].fill_(float("nan"))
    assert "batch" not in refusal(net, 3, 4, 4)
