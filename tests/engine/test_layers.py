"""What is said of a network's norms: flags, each of a network that has just that one, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.engine.layers import Layers
from service.engine.unfolded import Unfolded
from service.graph.capture import capture
from service.graph.fold import FoldedGraph, fold_graph
from service.graph.reference import Reference
from service.inspection.thresholds import Thresholds
from service.network.adopt import adopt
from service.plan.plan import PRECISIONS
from tests.graph.networks import Net, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.inspection.layer_stats import LayerStats


def described(network: nn.Module, precision: str = "float32", channels: int = 3) -> list[LayerStats]:
    """The layers of a network of images that is folded for a precision."""
    _, layers = folded(network, precision, channels)
    return layers


def folded(
    network: nn.Module, precision: str = "float32", channels: int = 3
) -> tuple[FoldedGraph, list[LayerStats]]:
    ours = adopt(network).eval()
    reference = Reference.of(capture(ours, torch.zeros(2, channels, 8, 8)))
    computed = PRECISIONS[precision]
    fold = fold_graph(reference, computed.dtype)
    layers = Layers.of(Unfolded(ours, reference, "computed"), fold, computed, precision)
    return fold, layers.stats(fold.report.layers, Thresholds())


def conv_norm(behind: nn.Module | None = None) -> Any:
    """A convolution, a norm of 8 channels whose every value is usual, and what stands behind."""
    network: Any = Net(
        lambda net, x: net.behind(net.bn(net.conv(x))),
        conv=nn.Conv2d(3, 8, 3, bias=False),
        bn=nn.BatchNorm2d(8),
        behind=behind or nn.ReLU(),
    )
    with torch.no_grad():
        trained(network)
        network.bn.weight.copy_(torch.linspace(0.5, 1.5, 8))
        network.bn.bias.copy_(torch.linspace(-0.5, 0.5, 8))
        network.bn.running_var.copy_(torch.linspace(0.5, 2.0, 8))
    return network


def no_relu() -> Any:
    return conv_norm(nn.Identity())


def setting(name: str, value: float, *channels: int) -> Callable[[Any], None]:
    def change(network: Any) -> None:
        tensor: Tensor = network.state_dict()[name]
        for channel in channels:
            tensor[channel] = value

    return change


def scaling(name: str, factor: float) -> Callable[[Any], None]:
    def change(network: Any) -> None:
        network.state_dict()[name].mul_(factor)

    return change


def untrained(network: Any) -> None:
    network.bn.running_mean.zero_()
    network.bn.running_var.fill_(1)


def nearly_untrained(network: Any) -> None:
    untrained(network)
    network.bn.running_mean[3] = 1e-6


def small_variance_of_quiet_channel(variance: float) -> Callable[[Any], None]:
    def change(network: Any) -> None:
        network.bn.running_var[2] = variance
        network.bn.weight[2], network.bn.bias[2] = 0.01, 0.1

    return change


@pytest.mark.parametrize(
    ("make", "precision", "change", "flag", "level", "channels"),
    [
        (conv_norm, "float32", setting("bn.running_var", -1e-6, 1), "non_finite", "error", [1]),
        (conv_norm, "float32", untrained, "untrained", "warning", [*range(8)]),
        (no_relu, "float32", setting("bn.weight", 1e-5, 2), "constant_channel", "note", [2]),
        (conv_norm, "float32", small_variance_of_quiet_channel(9e-6), "eps_dominates", "note", [2]),
        (conv_norm, "float32", setting("bn.bias", -9.0, 4), "never_fires", "note", [4]),
        (conv_norm, "float32", setting("bn.bias", -9.0, 4, 5, 6), "never_fires", "warning", [4, 5, 6]),
        (conv_norm, "float32", setting("bn.weight", 45.0, 7), "outlier_gain", "note", [7]),
        (conv_norm, "float16", scaling("bn.running_var", 1e16), "precision", "warning", [*range(8)]),
    ],
)
def test_a_network_has_just_the_flag_that_it_was_made_for(
    make: Callable[[], Any],
    precision: str,
    change: Callable[[Any], None],
    flag: str,
    level: str,
    channels: list[int],
) -> None:
    network: Any = make()
    with torch.no_grad():
        change(network)
    (layer,) = described(network, precision)
    (found,) = layer.flags
    assert (found.flag, found.level, found.channels) == (flag, level, channels)


@pytest.mark.parametrize(
    ("make", "precision", "change"),
    [
        (conv_norm, "float32", setting("bn.running_var", 0.01, 1)),
        (conv_norm, "float32", nearly_untrained),
        (no_relu, "float32", setting("bn.weight", 1.1e-3, 2)),
        (conv_norm, "float32", small_variance_of_quiet_channel(1.1e-5)),
        (conv_norm, "float32", setting("bn.bias", -1.5, 4)),
        (no_relu, "float32", setting("bn.bias", -9.0, 4, 5, 6)),
        (conv_norm, "float32", setting("bn.weight", 15.0, 7)),
        (conv_norm, "float32", scaling("bn.running_var", 1e16)),
        (conv_norm, "bfloat16", scaling("bn.running_var", 1e16)),
        (conv_norm, "float16", scaling("bn.running_var", 1e4)),
    ],
)
def test_a_network_that_comes_near_has_no_flag(
    make: Callable[[], Any], precision: str, change: Callable[[Any], None]
) -> None:
    network: Any = make()
    with torch.no_grad():
        change(network)
    (layer,) = described(network, precision)
    assert layer.flags == []


# What stands behind


@pytest.mark.parametrize(
    ("behind", "activation"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU6(), "relu6"),
        (nn.SiLU(), "silu"),
        (nn.Hardtanh(0.0, 2.0), None),
        (nn.Hardtanh(), None),
        (nn.MaxPool2d(2), None),
        (nn.Identity(), None),
    ],
)
def test_the_activation_directly_behind_is_named(behind: nn.Module, activation: str | None) -> None:
    (layer,) = described(conv_norm(behind))
    assert layer.activation == activation


@pytest.mark.parametrize(
    "answer",
    [
        lambda net, x: net.relu(net.bn(net.conv(x)) + net.conv(x)),
        lambda net, x: (out := net.bn(net.conv(x))) + net.relu(out),
        lambda net, x: net.relu(net.pool(net.bn(net.conv(x)))),
    ],
    ids=["a sum before it", "another reader", "a pool between"],
)
def test_no_channel_is_silent_where_the_relu_is_not_directly_behind(answer: Callable[..., Tensor]) -> None:
    network: Any = conv_norm()
    network.answer, network.relu, network.pool = answer, nn.ReLU(), nn.MaxPool2d(2)
    network.bn.bias.data.fill_(-9.0)
    (layer,) = described(network)
    assert (layer.activation, layer.flags) == (None, [])


def test_a_norm_that_is_called_twice_has_the_activation_of_both_calls_or_none() -> None:
    def twice(net: Any, x: Tensor) -> Any:
        return net.relu(net.bn(net.conv(x))) + net.second(net.bn(net.conv(x + 1)))

    for second, activation in ((nn.ReLU(), "relu"), (nn.Identity(), None)):
        network = conv_norm()
        network.answer, network.relu, network.second = twice, nn.ReLU(), second
        (layer,) = described(network)
        assert layer.activation == activation


# Folded weights that the precision cannot hold


def test_a_fold_that_would_overflow_is_not_made_and_its_weights_are_counted() -> None:
    network: Any = no_relu()
    with torch.no_grad():
        network.conv.weight.mul_(100)
        network.bn.running_mean.zero_()
        network.bn.running_var[:] = 1.0
        network.bn.running_var[5] = 1e-3
        network.bn.weight[5] = 1e3
    (layer,) = described(network, "float16")
    flag = next(flag for flag in layer.flags if flag.flag == "precision")
    weights = (network.conv.weight[5] * 1e3 / (1e-3 + 1e-5) ** 0.5).abs()
    assert layer.outcome == "kept"
    assert (flag.channels, flag.value) == ([5], int((weights > 65504).sum()))
    assert "overflow" in flag.message


def test_weights_that_the_fold_makes_0_are_counted_in_any_precision() -> None:
    for precision in ("float32", "bfloat16", "float16"):
        network = no_relu()
        with torch.no_grad():
            network.conv.weight[3] *= 1e-31
        (layer,) = described(network, precision)
        (flag,) = layer.flags
        assert (flag.flag, flag.channels, flag.value) == ("precision", [3], 1.0)
        assert f"27 folded weights that are not 0 become 0 in 1 channel of conv: {precision}" == flag.message


def test_weights_that_are_0_are_not_lost() -> None:
    network: Any = no_relu()
    with torch.no_grad():
        network.conv.weight[3] = 0.0
        network.bn.weight[4] = 0.0  # makes them all exactly 0
    (layer,) = described(network, "float16")
    assert [flag.flag for flag in layer.flags] == ["constant_channel"]


def test_of_a_kept_norm_its_own_scale_is_counted() -> None:
    network: Any = Net(lambda net, x: net.bn(x) + x, bn=nn.BatchNorm2d(8))
    trained(network)
    with torch.no_grad():
        network.bn.weight.fill_(1.0)
        network.bn.weight[1], network.bn.weight[2] = 0.0, 1e-9
    (layer,) = described(network, "float16", channels=8)
    assert layer.outcome == "kept"
    flags = {flag.flag: flag.channels for flag in layer.flags}
    assert flags == {"constant_channel": [1, 2], "precision": [2]}


@pytest.mark.parametrize("groups", [1, 2])
def test_the_channels_of_a_transposed_convolution_are_its_outputs(groups: int) -> None:
    network: Any = Net(
        lambda net, x: net.bn(net.conv(x)),
        conv=nn.ConvTranspose2d(4, 8, 3, groups=groups, bias=False),
        bn=nn.BatchNorm2d(8),
    )
    trained(network)
    with torch.no_grad():
        network.conv.weight[-1, 1] *= 1e-31  # of the last group's outputs the second
    (layer,) = described(network, channels=4)
    flags = [flag for flag in layer.flags if flag.flag == "precision"]
    assert [flag.channels for flag in flags] == [[(groups - 1) * 8 // groups + 1]]


# How exact


def test_the_folding_error_is_that_of_the_precision() -> None:
    errors = {}
    for precision in ("float32", "float16", "bfloat16"):
        (layer,) = described(conv_norm(), precision)
        assert layer.folding_error is not None
        errors[precision] = layer.folding_error
        assert layer.folding_error_at == "bn"
    # Their units of rounding are 6e-8, 5e-4 and 4e-3.
    assert 1e-9 < errors["float32"] < 1e-6
    assert 1e-5 < errors["float16"] < 2e-3
    assert 5e-4 < errors["bfloat16"] < 2e-2


def test_a_norm_whose_output_is_gone_is_measured_at_the_next_place_that_is_there() -> None:
    def pre_activation(net: Any, x: Tensor) -> Any:
        x = net.conv(x)
        return x + net.last(net.bn2(net.conv1(net.relu(net.bn1(x)))))

    network: Any = Net(
        pre_activation,
        conv=nn.Conv2d(3, 4, 1),
        bn1=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        conv1=nn.Conv2d(4, 4, 1),
        bn2=nn.BatchNorm2d(4),
        last=nn.Conv2d(4, 4, 1),
    )
    first, second = described(trained(network))
    assert (first.outcome, first.folding_error_at) == ("into_consumer", "bn2")
    assert (second.outcome, second.folding_error_at) == ("into_producer", "bn2")
    assert first.folding_error == second.folding_error


def test_behind_the_last_place_the_answer_is_measured() -> None:
    network: Any = Net(
        lambda net, x: net.conv(net.relu(net.bn(x))) + x,
        bn=nn.BatchNorm2d(3),
        relu=nn.ReLU(),
        conv=nn.Conv2d(3, 3, 1),
    )
    (layer,) = described(trained(network))
    assert (layer.outcome, layer.folding_error_at) == ("into_consumer", "answer")
    assert layer.folding_error is not None
    assert layer.folding_error < 1e-6


def test_the_error_grows_at_the_layer_that_amplifies_it() -> None:
    network: Any = Net(
        lambda net, x: net.bn2(net.conv2(net.relu(net.bn1(net.conv1(x))))),
        conv1=nn.Conv2d(3, 4, 1),
        bn1=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        conv2=nn.Conv2d(4, 4, 1, bias=False),
        bn2=nn.BatchNorm2d(4),
    )
    trained(network)
    with torch.no_grad():
        network.bn1.bias.fill_(1000.0)  # of which only differences are left
        network.conv2.weight.copy_((torch.eye(4) - torch.eye(4).roll(1, 0)).reshape(4, 4, 1, 1))
    first, second = described(network)
    assert first.folding_error is not None
    assert second.folding_error is not None
    assert first.folding_error < 1e-6
    assert second.folding_error > 20 * first.folding_error
