"""What is captured: the whole network, for any number of rows, under its own names."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from service.graph import fold
from service.graph.capture import CapturedGraph, capture
from service.graph.stored_tensors import stored_names

from .networks import Net, assert_same_state, exact, normal, trained

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten


def targets(captured: CapturedGraph) -> set[object]:
    return {node.target for node in captured.module.graph.nodes if node.op == "call_function"}


def small() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()))


@pytest.mark.parametrize("example_rows", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_any_example_gives_a_graph_for_any_number_of_rows(example_rows: int, rows: int) -> None:
    captured = capture(small(), normal(example_rows, 3, 6, 6))
    x = normal(rows, 3, 6, 6, seed=1)
    assert_close(captured.module(x).double(), exact(small(), x), rtol=1e-5, atol=1e-5)


def test_the_example_has_two_rows_at_least() -> None:
    assert capture(small(), normal(1, 3, 6, 6)).example.shape == (2, 3, 6, 6)
    assert capture(small(), normal(5, 3, 6, 6)).example.shape == (5, 3, 6, 6)


def test_a_reshape_by_the_batch_size_stays_dynamic() -> None:
    net = trained(Net(lambda net, x: net.fc(x.view(x.shape[0], -1)), fc=nn.Linear(12, 5)))
    captured = capture(net, normal(1, 3, 2, 2))
    x = normal(4, 3, 2, 2)
    assert_close(captured.module(x).double(), exact(net, x), rtol=1e-5, atol=1e-5)


def test_stored_tensors_keep_the_names_of_the_network() -> None:
    net = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4)})
    whole = trained(Net(lambda self, x: self.body["norm"](self.body["stem"](x)), body=net))
    captured = capture(whole, normal(2, 3, 4, 4))
    assert set(stored_names(captured.module.graph)) == {
        name for name in whole.state_dict() if not name.endswith("num_batches_tracked")
    }


def test_a_module_called_twice_is_two_calls_of_the_same_tensors() -> None:
    net = trained(Net(lambda net, x: net.conv(net.conv(x)), conv=nn.Conv2d(3, 3, 1)))
    captured = capture(net, normal(2, 3, 4, 4))
    nodes = list(captured.module.graph.nodes)
    assert sum(node.target is aten.conv2d.default for node in nodes) == 2
    assert sorted(str(node.target) for node in nodes if node.op == "get_attr") == ["conv.bias", "conv.weight"]


@pytest.mark.parametrize(
    "dropout", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.Dropout(0.5, inplace=True)]
)
def test_dropout_is_not_in_the_graph(dropout: nn.Module) -> None:
    captured = capture(nn.Sequential(nn.Conv2d(3, 4, 1), dropout, nn.ReLU()), normal(2, 3, 4, 4))
    assert targets(captured) == {aten.conv2d.default, aten.relu.default}


def test_what_nobody_reads_is_not_in_the_graph() -> None:
    def answer(net: Net, x: torch.Tensor) -> torch.Tensor:
        net.get_submodule("unread")(x)
        read: torch.Tensor = net.get_submodule("read")(x)
        return read

    captured = capture(Net(answer, unread=nn.Conv2d(3, 4, 1), read=nn.Conv2d(3, 4, 1)), normal(2, 3, 4, 4))
    assert set(stored_names(captured.module.graph)) == {"read.weight", "read.bias"}


def test_every_training_flag_is_left_as_it_was() -> None:
    net = small().train()
    net[1].eval()
    capture(net, normal(2, 3, 6, 6))
    assert [child.training for child in net] == [True, False, True, True]
    assert net.training


def test_a_network_in_training_mode_is_captured_as_it_evaluates() -> None:
    net = small()
    x = normal(3, 3, 6, 6)
    expected = exact(net, x)
    captured = capture(net.train(), normal(2, 3, 6, 6))
    assert_close(captured.module(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_network_is_left_bit_identical() -> None:
    net = small().train()
    before = copy.deepcopy(net.state_dict())
    capture(net, normal(2, 3, 6, 6))
    assert_same_state(before, net.state_dict())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_constants_made_in_the_forward_are_captured() -> None:
    net = trained(
        Net(lambda net, x: net.conv(x) * torch.tensor([1.0, 2.0]).view(2, 1, 1), conv=nn.Conv2d(3, 2, 1))
    )
    x = normal(3, 3, 4, 4)
    assert_close(capture(net, x).module(x).double(), exact(net, x), rtol=1e-5, atol=1e-5)


def without_gradients(net: Any, x: Tensor) -> Any:
    with torch.no_grad():
        y = net.bn(net.conv(x))
    return net.conv(y).relu()


def without_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        y = net.conv(x)
        parts = y.chunk(3, 1)
    return torch.cat([parts[2], net.bn(y), parts[0]], 1)


def one_region_in_another(net: Any, x: Tensor) -> Any:
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        y = net.conv(x)
        with torch.no_grad():
            y = net.bn(y)
        y.mul_(2)
    return y


@pytest.mark.parametrize(
    "answer", [without_gradients, without_autocast, one_region_in_another], ids=lambda answer: answer.__name__
)
def test_regions_that_change_nothing_at_inference_are_written_out(
    answer: Callable[[Any, Tensor], Any],
) -> None:
    net = trained(Net(answer, conv=nn.Conv2d(3, 3, 1), bn=nn.BatchNorm2d(3)))
    module = capture(net, normal(2, 3, 4, 4)).module
    x = normal(5, 3, 4, 4, seed=1)
    assert_close(module(x).double(), exact(net, x), rtol=1e-5, atol=1e-5)
    assert [layer.name for layer in fold(net, x).report.layers] == ["bn"]
