"""An exact fold that would be slower than the norm is not made; free folds come before paid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph import fold

from .networks import Net, exact, judged, normal, outcomes, relative_error, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph.report import NormOutcome

aten = torch.ops.aten

ROW = (4, 6, 6)
POSITIVE = [1.5, 0.7, 0.1, 2.0]
MIXED = [1.5, -0.7, 0.0, 2.0]
SLOWER = "which is slower than the norm"


def conv(kernel: Any = 3, c_in: int = 4, c_out: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, **{"padding": kernel // 2, **options})


def norm(channels: int = 4) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


@torch.no_grad()
def scaled(net: nn.Module, gammas: list[float]) -> nn.Module:
    """`net` trained, its norms of four channels with these gammas."""
    for module in trained(net).modules():
        if isinstance(module, nn.BatchNorm2d) and module.num_features == len(gammas):
            module.weight.copy_(torch.tensor(gammas))
    return net


def only(net: nn.Module, *row: int) -> NormOutcome:
    (layer,) = judged(net, *(row or ROW)).layers
    return layer


def calls(net: nn.Module, *row: int) -> list[Any]:
    """What the folded graph calls, in order."""
    graph = fold(net, normal(2, *(row or ROW))).module.graph
    return [node.target for node in graph.nodes if node.op == "call_function"]


# Bounds per channel for an activation.


def test_a_norm_behind_a_relu_goes_forward_and_the_relu_stays_a_relu() -> None:
    net = scaled(nn.Sequential(conv(), nn.ReLU(), norm(), conv(1)), MIXED)
    layer = only(net)
    assert (layer.outcome, layer.partner) == ("into_consumer", "3")
    assert calls(net) == [aten.conv2d.default, aten.relu.default, aten.conv2d.default]


def test_a_norm_behind_a_relu_folds_backward_where_it_cannot_go_forward() -> None:
    net = scaled(Net(lambda net, x: net.bn(net.conv(x).relu()).sin(), conv=conv(), bn=norm()), MIXED)
    assert only(net).outcome == "into_producer"
    assert calls(net) == [aten.conv2d.default, aten.clamp.Tensor, aten.sin.default]


@pytest.mark.parametrize(
    "activation", [nn.Sigmoid(), nn.ReLU(), nn.SiLU(), nn.GELU(), nn.LeakyReLU(0.1)], ids=repr
)
def test_a_norm_between_activations_is_kept_as_it_costs_nothing_there(activation: nn.Module) -> None:
    layer = only(scaled(nn.Sequential(conv(), nn.ReLU(), norm(), activation), MIXED))
    assert layer.outcome == "kept"
    assert f"1 (relu) would become a pass of its own, {SLOWER}" in layer.reason


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2)], ids=repr
)
def test_a_norm_of_a_pooled_activation_is_kept_as_the_activation_is_larger(pool: nn.Module) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(net.pool(net.conv(x).relu()))
        return y * y.sin()

    net = scaled(Net(answer, conv=conv(), pool=pool, bn=norm()), POSITIVE)
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        assert only(net).outcome == "kept"
    else:
        layer = only(net)
        assert layer.outcome == "kept"
        assert f"relu (relu) would become a pass of its own, {SLOWER}" in layer.reason
    assert aten.relu.default in calls(net)


def test_a_norm_of_a_pooled_convolution_is_free() -> None:
    net = scaled(
        Net(lambda net, x: net.bn(F.avg_pool2d(net.conv(x), 2)).sin(), conv=conv(), bn=norm()), MIXED
    )
    assert only(net).outcome == "into_producer"


def test_an_activation_behind_the_pool_is_as_large_as_the_norm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(F.avg_pool2d(net.conv(x), 2).relu()).sin()

    assert only(scaled(Net(answer, conv=conv(), bn=norm()), MIXED)).outcome == "into_producer"


FREE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bounds per channel already": lambda net, y: torch.clamp(y, min=net.low),
    "a value that something else has moved": lambda _, y: F.channel_shuffle(y, 2).relu(),
    "a pooled value": lambda _, y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False).relu(),
}


@pytest.mark.parametrize("activation", FREE)
def test_an_activation_that_is_a_pass_already_takes_bounds_for_nothing(activation: str) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(F.avg_pool2d(FREE[activation](net, net.conv(x)), 2))
        return y.sigmoid()

    net = scaled(Net(answer, conv=conv(), bn=norm(), low=normal(4, 1, 1)), MIXED)
    assert only(net).outcome == "into_producer"


@pytest.mark.parametrize("join", [torch.add, torch.sub])
def test_an_activation_of_a_sum_rides_with_it_and_keeps_a_pooled_norm(join: Callable[..., Tensor]) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(F.avg_pool2d(join(net.a(x), net.b(x.sin())).relu(), 2)).sin()

    layer = only(scaled(Net(answer, a=conv(), b=conv(1), bn=norm()), MIXED))
    assert layer.outcome == "kept"
    assert SLOWER in layer.reason


def test_two_activations_are_paid_together() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(net.a(x).relu() + net.b(x).relu()).sin()

    layer = only(scaled(Net(answer, a=conv(), b=conv(1), bn=norm()), MIXED))
    assert layer.outcome == "kept"
    assert SLOWER in layer.reason


def test_a_scale_of_0_or_1_and_no_shift_leaves_the_bounds_of_a_relu_and_costs_nothing() -> None:
    net = scaled(nn.Sequential(conv(), nn.ReLU(), nn.AvgPool2d(2), norm(), nn.Sigmoid()), POSITIVE)
    with torch.no_grad():
        net.get_parameter("3.bias").zero_()
        net.get_buffer("3.running_mean").zero_()
    assert only(net).outcome == "into_producer"
    assert aten.relu.default in calls(net)


def test_a_preactivation_before_a_pointwise_convolution_is_free() -> None:
    net = scaled(Net(lambda net, x: net.last(net.bn(x.sin()).relu()), bn=norm(), last=conv(1)), MIXED)
    assert only(net).outcome == "into_consumer"
    assert aten.clamp.Tensor in calls(net)


def test_a_norm_that_can_go_either_way_goes_into_the_layer_before_it() -> None:
    net = scaled(nn.Sequential(conv(), norm(), nn.ReLU(), conv(1)), MIXED)
    assert outcomes(judged(net, *ROW)) == [("1", "into_producer", "0")]
    assert calls(net) == [aten.conv2d.default, aten.relu.default, aten.conv2d.default]


def test_a_free_fold_of_a_later_norm_comes_before_a_paid_one_of_an_earlier_norm() -> None:
    net = scaled(nn.Sequential(conv(), nn.ReLU(), norm(), nn.MaxPool2d(2), norm(), conv(1)), POSITIVE)
    report = judged(net, *ROW)
    assert [layer.outcome for layer in report.layers] == ["into_consumer", "into_consumer"]
    assert aten.relu.default in calls(net)


# Border maps.


def test_a_map_is_not_added_where_the_epilogue_behind_it_makes_it_dearer_than_the_norm() -> None:
    layer = only(scaled(nn.Sequential(nn.Tanh(), norm(), conv(), nn.ReLU()), MIXED))
    assert layer.outcome == "kept"
    assert f"2 pads its input with zeros, and would need a map of its border, {SLOWER}" in layer.reason


def test_a_map_is_not_added_behind_more_channels_than_the_norm_has() -> None:
    layer = only(scaled(nn.Sequential(nn.Tanh(), norm(), conv(c_out=8)), MIXED))
    assert layer.outcome == "kept"
    assert SLOWER in layer.reason


def test_a_map_is_not_added_where_the_norm_is_part_of_an_activation() -> None:
    layer = only(scaled(nn.Sequential(nn.Tanh(), norm(), nn.ReLU(), conv(c_out=1)), MIXED))
    assert layer.outcome == "kept"
    assert SLOWER in layer.reason


def test_maps_for_several_readers_are_paid_together() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(x.sin())
        return torch.cat([net.a(y), net.b(y), net.c(y)], 1)

    def net(channels: int) -> nn.Module:
        parts = {name: conv(c_out=channels) for name in "abc"}
        return scaled(Net(answer, bn=norm(), **parts), MIXED)

    assert only(net(1)).outcome == "into_consumer"
    assert only(net(2)).outcome == "kept"


MAPPED: dict[str, nn.Module] = {
    "depthwise, strided": conv(stride=2, groups=4),
    "depthwise, strided unevenly": conv(stride=(3, 2), groups=4),
    "one channel": conv(c_out=1),
    "even kernel": conv(4, c_out=1, padding=1),
    "wide border": conv(3, c_out=1, padding=2),
    "one axis": conv(3, c_out=1, padding=(0, 1)),
    "dilated": conv(c_out=1, padding=2, dilation=2),
    "same": conv(c_out=1, padding="same"),
    "same, even": conv(4, c_out=1, padding="same"),
    "same, even and dilated": conv(2, c_out=1, padding="same", dilation=3),
    "in groups": conv(c_out=2, groups=2),
    "without bias": conv(c_out=2, bias=False),
    "larger than its input": conv(9, c_out=1, padding=5),
    "transposed": nn.ConvTranspose2d(4, 2, 3, padding=1),
    "transposed in groups": nn.ConvTranspose2d(4, 2, 3, padding=1, groups=2),
    "transposed, dilated": nn.ConvTranspose2d(4, 1, 3, padding=2, dilation=2, bias=False),
    "transposed, strided": nn.ConvTranspose2d(4, 1, 2, stride=2, padding=3, output_padding=1),
}


@pytest.mark.parametrize("last", MAPPED)
@pytest.mark.parametrize("gammas", [MIXED, [0.0] * 4], ids=["mixed", "zero"])
def test_a_norm_goes_into_a_convolution_that_pads_and_is_exact_at_the_border(
    last: str, gammas: list[float]
) -> None:
    net = scaled(nn.Sequential(nn.Tanh(), norm(), MAPPED[last]), gammas)
    layer = only(net)
    assert (layer.outcome, layer.partner) == ("into_consumer", "2")
    assert calls(net)[-1] is aten.add.Tensor
    x = normal(3, *ROW, seed=7)
    expected, answer = exact(net, x), fold(net, normal(2, *ROW)).module(x)
    for border in (answer[..., :1, :], answer[..., -1:, :], answer[..., :1], answer[..., -1:]):
        assert border.isfinite().all()
    for rows in ((..., 0, slice(None)), (..., -1, slice(None)), (..., 0), (..., -1)):
        assert relative_error(expected[rows], answer[rows]) < 1e-5


@pytest.mark.parametrize(
    ("bn", "last", "row"),
    [
        (nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3, padding=1, stride=2, groups=2), (4, 9)),
        (nn.BatchNorm1d(4), nn.ConvTranspose1d(4, 1, 3, padding=1), (4, 9)),
        (nn.BatchNorm3d(4), nn.Conv3d(4, 4, 3, padding=1, stride=2, groups=4), (4, 4, 5, 3)),
        (nn.BatchNorm3d(4), nn.Conv3d(4, 1, 2, padding="same"), (4, 4, 5, 3)),
        (nn.BatchNorm3d(4), nn.ConvTranspose3d(4, 2, 3, padding=1, groups=2), (4, 4, 3, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_maps_are_exact_in_one_and_three_dimensions(
    bn: nn.Module, last: nn.Module, row: tuple[int, ...]
) -> None:
    layer = only(trained(nn.Sequential(nn.Tanh(), bn, last)), *row)
    assert layer.outcome == "into_consumer"


def test_a_norm_goes_through_a_pool_into_a_convolution_that_pads() -> None:
    net = scaled(nn.Sequential(nn.Tanh(), norm(), nn.MaxPool2d(2), conv()), POSITIVE)
    assert only(net).outcome == "into_consumer"
    assert calls(net)[-1] is aten.add.Tensor


def test_a_norm_behind_a_map_is_kept_or_folds_and_is_right() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.last(net.conv(net.first(x.sin())))

    net = scaled(Net(answer, first=norm(), conv=conv(groups=4, stride=2), last=norm()), MIXED)
    assert outcomes(judged(net, *ROW)) == [
        ("first", "into_consumer", "conv"),
        ("last", "into_producer", "conv"),
    ]


@pytest.mark.parametrize("is_read_twice", [True, False])
def test_two_norms_whose_maps_meet_behind_one_convolution_are_both_added(is_read_twice: bool) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(net.second(F.max_pool2d(net.first(x), 3, 1, 1)))
        return net.third(y) * y.sigmoid() if is_read_twice else y

    parts = {"first": norm(), "second": norm(), "third": norm()} if is_read_twice else {"first": norm()}
    net = scaled(Net(answer, **{"second": norm(), **parts}, conv=conv(groups=4, stride=2)), POSITIVE)
    found = judged(net, *ROW).layers
    assert [layer.outcome for layer in found[:2]] == ["into_consumer", "into_consumer"]
    assert "undone" not in "".join(layer.reason for layer in found)


def test_a_map_does_not_stand_in_for_a_border_that_the_batch_lies_on() -> None:
    """The batch may be among the pixels: then the border map would have to grow with it."""

    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(net.bn(x.permute(1, 0, 2, 3).reshape(1, 4, -1, 6)))
        return y.reshape(4, -1, 6, 2).permute(1, 0, 2, 3)

    across = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), stride=(1, 3), groups=4)
    judged(trained(Net(answer, bn=norm(), conv=across)), *ROW)


def test_a_map_does_not_grow_with_parts_of_a_row_that_lie_among_the_rows() -> None:
    """Windows, or the frames of a film: several rows for each row of the network's input."""

    def answer(net: Any, x: Tensor) -> Any:
        windows = x.sin().reshape(-1, 4, 6, 2, 3).permute(0, 3, 1, 2, 4).flatten(0, 1)
        return net.conv(net.bn(windows)).reshape(-1, 2, 4, 3, 2).sum(1)

    net = trained(Net(answer, bn=norm(), conv=conv(stride=2, groups=4)))
    assert only(net).outcome == "into_consumer"


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(4, 4, 1), (4, 2, 1), (2, 6, 1), (8, 8, 2)])
def test_a_norm_without_a_shift_goes_forward_into_a_transposed_convolution(
    c_in: int, c_out: int, groups: int
) -> None:
    last = nn.ConvTranspose2d(c_in, c_out, 3, padding=1, groups=groups)
    net = trained(nn.Sequential(conv(1, 4, c_in), nn.Tanh(), norm(c_in), last))
    with torch.no_grad():
        net.get_parameter("2.bias").zero_()
        net.get_buffer("2.running_mean").zero_()
    assert only(net).outcome == "into_consumer"


def test_a_norm_without_a_shift_needs_no_map() -> None:
    net = scaled(nn.Sequential(nn.Tanh(), norm(), conv(c_out=8), nn.ReLU()), MIXED)
    with torch.no_grad():
        net.get_parameter("1.bias").zero_()
        net.get_buffer("1.running_mean").zero_()
    assert only(net).outcome == "into_consumer"
    assert aten.add.Tensor not in calls(net)
