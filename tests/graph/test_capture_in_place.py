"""In-place operations: the graph has none, and answers as the eager network, aliases and all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.testing import assert_close

from service.errors import ModelRefused
from service.graph.capture import capture

from .networks import Net, exact, normal, trained

if TYPE_CHECKING:
    from collections.abc import Callable


def relu_then_read_again(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    z = y.relu_()
    return z + y


def residual_add(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    y += x
    return F.relu(y, inplace=True)


def several_on_one_value(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    y.mul_(2)
    y.add_(1).relu_()
    y.sub_(0.5)
    return y * y


def on_the_input_of_the_network(net: Any, x: Tensor) -> Any:
    x = x.relu_()
    return net.conv(x) + x


def normalises_its_input(net: Any, x: Tensor) -> Any:
    return net.conv(x.sub_(0.5).div_(2))


def slice_assignment(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    y[:, 0] = 0
    y[:, 1:, 2:4] *= 3
    return net.conv(y)


def half_of_a_split(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    left, right = y.chunk(2, 1)
    left.relu_()
    return torch.cat([left, right], 1) + y


def view_made_before(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    flat = y.view(y.shape[0], -1)
    y.relu_()
    return flat


def through_a_view(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    y.permute(0, 2, 3, 1)[..., 0].fill_(2)
    return net.conv(y)


def filled_buffer(net: Any, x: Tensor) -> Any:
    out = torch.zeros_like(x)
    out[:, :2] = net.conv(x)[:, :2]
    return out


def after_dropout(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    return net.relu(net.dropout(y)) + y


def on_a_part_of_the_input(net: Any, x: Tensor) -> Any:
    x[:, 0].zero_()
    return net.conv(x)


def through_einsum(net: Any, x: Tensor) -> Any:
    y = net.conv(x)
    torch.einsum("nchw->nhwc", y).relu_()
    return net.conv(y)


def network(answer: Callable[[Any, Tensor], Any]) -> Net:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return trained(Net(answer, conv=conv, dropout=nn.Dropout(0.5), relu=nn.ReLU(inplace=True)))


@pytest.mark.parametrize(
    "answer",
    [
        relu_then_read_again,
        residual_add,
        several_on_one_value,
        on_the_input_of_the_network,
        normalises_its_input,
        slice_assignment,
        half_of_a_split,
        view_made_before,
        through_a_view,
        filled_buffer,
        after_dropout,
    ],
    ids=lambda answer: answer.__name__,
)
def test_in_place_operations_become_functional(answer: Callable[[Any, Tensor], Any]) -> None:
    module = capture(network(answer), normal(2, 4, 6, 6)).module
    calls = [node.target for node in module.graph.nodes if isinstance(node.target, OpOverload)]
    assert not [target for target in calls if target._schema.is_mutable]
    x = normal(3, 4, 6, 6, seed=1)
    given = x.clone()
    assert_close(module(given).double(), exact(network(answer), x), rtol=1e-5, atol=1e-5)
    assert torch.equal(given, x)  # whoever calls the graph keeps their rows


@pytest.mark.parametrize("answer", [on_a_part_of_the_input, through_einsum], ids=lambda a: a.__name__)
def test_rare_aliases_are_followed_or_refused(answer: Callable[[Any, Tensor], Any]) -> None:
    try:
        module = capture(network(answer), normal(2, 4, 6, 6)).module
    except ModelRefused:
        return
    x = normal(3, 4, 6, 6, seed=1)
    assert_close(module(x.clone()).double(), exact(network(answer), x), rtol=1e-5, atol=1e-5)


def test_what_is_made_of_a_changed_value_needs_no_decomposition() -> None:
    # Decompositions trace the network anew, which doubles the time of a capture.
    def block(net: Any, x: Tensor) -> Any:
        y = net.norm(net.conv(x))
        y += x
        y = net.relu(y)
        return net.conv(y.flatten(2).unflatten(2, (6, 6))) + y

    norm = nn.BatchNorm2d(4)
    net = trained(Net(block, conv=nn.Conv2d(4, 4, 1), norm=norm, relu=nn.ReLU(inplace=True)))
    module = capture(net, normal(2, 4, 6, 6)).module
    assert torch.ops.aten.batch_norm.default in {node.target for node in module.graph.nodes}
    x = normal(3, 4, 6, 6, seed=1)
    assert_close(module(x).double(), exact(net, x), rtol=1e-5, atol=1e-5)
