"""Where a norm stands decides what becomes of it; every norm gets one outcome, kept ones a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.graph import fold
from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.network.batch_norm import BatchNorm2d

from .networks import Net, judged, normal, outcomes, positive, trained

aten = torch.ops.aten


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1)


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4)


def test_a_norm_before_a_convolution_whose_border_would_cost_more_is_kept_with_a_reason() -> None:
    (layer,) = judged(trained(nn.Sequential(nn.ReLU(), norm(), conv(), nn.ReLU())), 4, 6, 6).layers
    assert (layer.outcome, layer.partner) == ("kept", None)
    assert "2 pads its input with zeros" in layer.reason


def test_a_norm_on_the_input_of_the_network_is_kept_with_a_reason() -> None:
    (layer,) = judged(trained(nn.Sequential(norm(), nn.GELU(), conv())), 4, 6, 6).layers
    assert layer.outcome == "kept"
    assert layer.reason.startswith("its input comes from the network's input")


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNorm2d], ids=["torch's", "ours"])
def test_a_norm_as_the_whole_network_is_kept(kind: type[nn.Module]) -> None:
    (layer,) = judged(trained(kind(4)), 4, 6, 6).layers
    assert layer.outcome == "kept"


def test_a_kept_norm_is_one_call() -> None:
    net = trained(nn.Sequential(nn.ReLU(), BatchNorm2d(4)))
    calls = [
        node.target for node in fold(net, normal(2, 4, 6, 6)).module.graph.nodes if node.op == "call_function"
    ]
    assert calls == [aten.relu.default, aten.addcmul.default]


@pytest.mark.parametrize("reader", [norm(), nn.ReLU()], ids=["a norm", "something else"])
def test_a_convolution_with_two_readers_keeps_the_norms(reader: nn.Module) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return net.bn(y) + net.reader(y)

    report = judged(trained(Net(answer, conv=conv(), bn=norm(), reader=reader)), 4, 6, 6)
    assert {layer.outcome for layer in report.layers} == {"kept"}
    assert "the output of conv (conv2d) is also read by" in report.layers[0].reason


def test_a_convolution_that_is_also_the_answer_keeps_the_norm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return torch.cat([y, net.bn(y)], 1)

    assert outcomes(judged(trained(Net(answer, conv=conv(), bn=norm())), 4, 6, 6)) == [("bn", "kept", None)]


def test_norms_in_a_row_become_one_map() -> None:
    net = trained(nn.Sequential(conv(), norm(), norm(), BatchNorm2d(4), nn.ReLU()))
    report = judged(net, 4, 6, 6)
    assert outcomes(report) == [("1", "into_producer", "0"), ("2", "absorbed", "1"), ("3", "absorbed", "1")]
    assert (report.norms, report.folded, report.kept) == (3, 3, 0)


def test_norms_in_a_row_that_cannot_fold_become_one_kept_map() -> None:
    report = judged(trained(nn.Sequential(nn.ReLU(), norm(), norm(), nn.GELU(), conv())), 4, 6, 6)
    assert outcomes(report) == [("1", "kept", None), ("2", "absorbed", "1")]


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNorm2d], ids=["torch's", "ours"])
def test_one_norm_called_twice_in_a_row_is_two_norms(kind: type[nn.Module]) -> None:
    net = Net(lambda net, x: net.bn(net.bn(net.conv(x))), conv=conv(), bn=kind(4))
    assert outcomes(judged(trained(net), 4, 6, 6)) == [
        ("bn", "into_producer", "conv"),
        ("bn@1", "absorbed", "bn"),
    ]


def test_a_norm_whose_steps_are_read_in_between_is_one_norm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        scale = torch.rsqrt(net.var + 1e-5)
        scaled = net.conv(x) * scale
        return (scaled - net.mean * scale) + scaled.relu()

    net = Net(answer, conv=conv(), mean=normal(4, 1, 1), var=positive(4, 1, 1))
    assert judged(trained(net), 4, 6, 6).norms == 1


def test_a_shift_by_the_scale_itself_folds() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        scale = torch.rsqrt(net.var + 1e-5)
        return net.conv(x) * scale + scale

    net = Net(answer, conv=conv(), var=positive(4, 1, 1))
    assert [outcome for _, outcome, _ in outcomes(judged(trained(net), 4, 6, 6))] == ["into_producer"]


def test_norms_that_read_one_folded_norm_are_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.first(net.conv(x))
        return net.left(y) * net.right(y)

    net = Net(answer, conv=conv(), first=norm(), left=norm(), right=norm())
    assert outcomes(judged(trained(net), 4, 6, 6)) == [
        ("first", "into_producer", "conv"),
        ("left", "kept", None),
        ("right", "kept", None),
    ]


def test_norms_that_read_one_kept_norm_are_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.first(x.relu())
        return net.left(y) * net.right(y) + y

    report = judged(trained(Net(answer, first=norm(), left=norm(), right=norm())), 4, 6, 6)
    assert outcomes(report) == [("first", "kept", None), ("left", "kept", None), ("right", "kept", None)]


def test_a_kept_norm_behind_moved_maps_reads_the_right_value() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        folded = net.conv(x) * net.width * net.channel  # three chains on different axes
        return net.bn(folded) + net.width

    net = Net(answer, conv=conv(), bn=norm(), width=normal(6), channel=normal(4, 1, 1))
    (layer,) = judged(trained(net), 4, 6, 6).layers
    assert layer.outcome == "kept"


def test_a_residual_block_folds_every_norm_that_has_a_convolution() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.relu(net.bn1(net.conv1(x)))
        y = net.bn2(net.conv2(y))
        y += net.shortcut(x)
        return net.relu(y)

    net = Net(
        answer,
        conv1=conv(),
        bn1=norm(),
        conv2=conv(),
        bn2=norm(),
        relu=nn.ReLU(inplace=True),
        shortcut=nn.Sequential(nn.Conv2d(4, 4, 1), norm()),
    )
    assert outcomes(judged(trained(net), 4, 6, 6)) == [
        ("bn1", "into_producer", "conv1"),
        ("bn2", "into_producer", "conv2"),
        ("shortcut.1", "into_producer", "shortcut.0"),
    ]


def test_dropout_between_a_convolution_and_its_norm_is_no_obstacle() -> None:
    net = trained(nn.Sequential(conv(), nn.Dropout2d(0.5), norm()))
    assert outcomes(judged(net, 4, 6, 6)) == [("2", "into_producer", "0")]


def test_a_network_without_norms_folds_to_itself() -> None:
    assert judged(trained(nn.Sequential(conv(), nn.ReLU())), 4, 6, 6).layers == ()


def test_the_outcomes_are_in_the_order_of_computation() -> None:
    net = Net(lambda net, x: net.a(net.conv(net.b(net.conv(x)))), a=norm(), b=norm(), conv=conv())
    assert [name for name, _, _ in outcomes(judged(trained(net), 4, 6, 6))] == ["b", "a"]


def test_folding_a_folded_network_finds_nothing_more() -> None:
    net = trained(nn.Sequential(conv(), norm(), nn.ReLU(), norm(), conv()))
    folded = fold(net, normal(2, 4, 6, 6)).module
    assert judged(folded, 4, 6, 6).layers == ()


def test_training_the_network_on_does_not_change_the_folded_one() -> None:
    net = trained(nn.Sequential(conv(), norm(), nn.ReLU(), conv()))
    folded, x = fold(net, normal(2, 4, 6, 6)).module, normal(3, 4, 6, 6, seed=1)
    before = folded(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert torch.equal(folded(x), before)


def test_the_captured_graph_is_left_as_it_was() -> None:
    net = trained(nn.Sequential(conv(), norm(), nn.ReLU(), norm(), conv(), norm()))
    captured = capture(net, normal(2, 4, 6, 6))
    graph, state = str(captured.module.graph), dict(captured.module.state_dict())
    x = normal(3, 4, 6, 6, seed=1)
    before = captured.module(x)
    fold_graph(Reference.of(captured))
    assert str(captured.module.graph) == graph
    assert captured.module.state_dict().keys() == state.keys()
    assert torch.equal(captured.module(x), before)
