"""Every kind of linear call, its weights scaled: against the same call and a norm, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph.capture import capture
from service.graph.constants import Constants
from service.graph.linear import LinearCall

from .networks import Net, judged, normal, outcomes, trained

CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3), 1),
    "2d": (nn.Conv2d(4, 6, 3), 2),
    "3d": (nn.Conv3d(4, 6, 2), 3),
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), 2),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), 2),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), 2),
    "depthwise, two each": (nn.Conv2d(4, 8, 3, groups=4), 2),
    "one group, Cin = Cout": (nn.Conv2d(4, 4, 3), 2),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), 2),
    "dilated": (nn.Conv2d(4, 6, 2, dilation=2), 2),
    "padding='same'": (nn.Conv2d(4, 6, 3, padding="same"), 2),
    "padding='same', 1d": (nn.Conv1d(4, 6, 4, padding="same"), 1),
    "padding='valid', 3d": (nn.Conv3d(4, 6, 2, padding="valid"), 3),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), 2),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), 2),
}
TRANSPOSED = {
    "1d": (nn.ConvTranspose1d(4, 6, 3), 1),
    "2d": (nn.ConvTranspose2d(4, 6, 3), 2),
    "3d": (nn.ConvTranspose3d(4, 6, 2), 3),
    "Cin = Cout": (nn.ConvTranspose2d(4, 4, 3), 2),
    "grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), 2),
    "grouped, Cin = Cout": (nn.ConvTranspose2d(4, 4, 3, groups=2), 2),
    "grouped, Cin = Cout / groups": (nn.ConvTranspose2d(4, 8, 3, groups=2), 2),
    "depthwise": (nn.ConvTranspose2d(4, 4, 3, groups=4), 2),
    "without bias": (nn.ConvTranspose2d(4, 4, 3, bias=False), 2),
    "strided, dilated, output padding": (
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, dilation=2, groups=2),
        2,
    ),
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INTO_PRODUCER = [("bn", "into_producer", "linear")]


def assert_folds(linear: nn.Module, norm: nn.Module, *row: int) -> None:
    net = trained(Net(lambda net, x: net.bn(net.linear(x)), linear=linear, bn=norm))
    assert outcomes(judged(net, *row)) == INTO_PRODUCER


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_norm_folds_into_a_convolution(kind: str) -> None:
    conv, axes = CONVOLUTIONS[kind]
    assert_folds(conv, NORMS[axes](conv.out_channels), 4, *[5] * axes)


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_a_norm_folds_into_a_transposed_convolution(kind: str) -> None:
    conv, axes = TRANSPOSED[kind]
    assert_folds(conv, NORMS[axes](conv.out_channels), 4, *[5] * axes)


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_folds_into_a_linear_layer(bias: bool) -> None:
    assert_folds(nn.Linear(5, 4, bias=bias), nn.BatchNorm1d(4), 5)


def test_functional_calls_with_keyword_arguments_fold() -> None:
    def linear(net: Any, x: Tensor) -> Any:
        y = F.conv2d(input=x, weight=net.kernel, bias=None, groups=2, stride=(2, 1), dilation=2, padding=1)
        return net.bn(F.conv_transpose2d(y, weight=net.back, groups=2, stride=2, output_padding=1))

    net = Net(linear, kernel=normal(6, 2, 3, 3) / 4, back=normal(6, 3, 3, 3) / 4, bn=nn.BatchNorm2d(6))
    (outcome,) = judged(trained(net), 4, 8, 8).layers
    assert outcome.outcome == "into_producer"


def test_weights_made_of_parameters_are_scaled_with_them() -> None:
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    (outcome,) = judged(trained(nn.Sequential(conv, nn.BatchNorm2d(4))), 4, 6, 6).layers
    assert outcome.outcome == "into_producer"


def test_standardised_weights_are_constants_and_no_norm() -> None:
    def standardised(net: Any, x: Tensor) -> Any:
        flat = F.batch_norm(net.kernel.reshape(1, 4, -1), None, None, training=True)
        return net.bn(F.conv2d(x, flat.reshape(4, 3, 3, 3)))

    report = judged(trained(Net(standardised, kernel=normal(4, 3, 3, 3), bn=nn.BatchNorm2d(4))), 3, 6, 6)
    assert [(layer.name, layer.outcome) for layer in report.layers] == [("bn", "into_producer")]


def test_weights_made_in_the_forward_are_scaled() -> None:
    net = Net(lambda net, x: net.bn(F.conv2d(x, torch.ones(4, 1, 3, 3) / 9, groups=4)), bn=nn.BatchNorm2d(4))
    (outcome,) = judged(trained(net), 4, 6, 6).layers
    assert outcome.outcome == "into_producer"


def test_weights_that_depend_on_the_input_keep_the_norm() -> None:
    def product_with_the_rows(net: Any, x: Tensor) -> Any:
        return net.bn(F.linear(net.table, x).t())  # [N, 5]

    report = judged(trained(Net(product_with_the_rows, table=normal(5, 3), bn=nn.BatchNorm1d(5))), 3)
    assert [(layer.name, layer.outcome) for layer in report.layers] == [("bn", "kept")]


@pytest.mark.parametrize("row", [(4, 4), (4, 5)], ids=str)
def test_a_product_with_one_vector_has_no_channels_to_scale(row: tuple[int, int]) -> None:
    net = Net(lambda net, x: net.bn(F.linear(x, net.vector)), vector=normal(row[1]), bn=nn.BatchNorm1d(4))
    report = judged(trained(net), *row)
    assert [(layer.name, layer.outcome) for layer in report.layers] == [("bn", "kept")]


def test_the_float64_weights_are_the_call_and_the_map_in_one() -> None:
    module = capture(trained(nn.Conv2d(2, 3, 1)), normal(2, 2, 4, 4)).module
    (conv,) = [node for node in module.graph.nodes if LinearCall.is_one(node)]
    call = LinearCall.at(conv, Constants(module))
    assert call is not None
    scale, shift = torch.tensor([2.0, 0.0, -1.0]).double(), torch.tensor([0.0, 5.0, 1.0]).double()
    weight, bias = call.followed_by(scale, shift)
    assert torch.equal(weight, call.weight * scale.view(3, 1, 1, 1))
    assert torch.equal(bias, call.bias * scale + shift)  # type: ignore[operator]
    assert (call.axis, call.out_channels, weight.dtype) == (1, 3, torch.float64)
