"""Networks that cannot be served are refused as such, never with an error of torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import ModelRefused
from service.graph.capture import capture

from .networks import Net, normal

if TYPE_CHECKING:
    from collections.abc import Callable


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def branches_on_values(net: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def fixed_batch(net: Any, x: Tensor) -> Tensor:
    return x.view(2, 3, 16)


def raises(net: Any, x: Tensor) -> Tensor:
    raise KeyError("a bug of the network's own")


def counts_its_calls(net: Any, x: Tensor) -> Tensor:
    net.count.add_(1)
    answer: Tensor = net.conv(x)
    return answer


def counts_through_a_view(net: Any, x: Tensor) -> Tensor:
    answer: Tensor = net.conv(x) * net.count.clone()
    net.count.view(-1).add_(1)
    return answer


def replaces_a_buffer(net: Any, x: Tensor) -> Tensor:
    net.count = net.count + 1
    answer: Tensor = net.conv(x)
    return answer


def computes_in_autocast(net: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer: Tensor = net.conv(x)
    return answer


def asks_for_gradients(net: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        answer: Tensor = net.conv(x)
    return answer


def branches_in_the_graph(net: Any, x: Tensor) -> Tensor:
    answer: Tensor = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
    return answer


def refusal(net: nn.Module) -> str:
    with pytest.raises(ModelRefused) as refused:
        capture(net, normal(2, 3, 4, 4))
    return str(refused.value)


@pytest.mark.parametrize("answer", [branches_on_values, fixed_batch, raises], ids=lambda a: a.__name__)
def test_what_cannot_be_exported_is_refused(answer: Callable[[Any, Tensor], Tensor]) -> None:
    assert refusal(Net(answer)).startswith("the network cannot be captured with a dynamic batch: ")


def test_two_inputs_are_refused() -> None:
    assert "captured" in refusal(TwoInputs())


@pytest.mark.parametrize(
    "answer", [lambda net, x: (x, x + 1), lambda net, x: {"a": x, "b": x * 2}], ids=["tuple", "dict"]
)
def test_two_outputs_are_refused(answer: Callable[[Any, Tensor], Any]) -> None:
    assert refusal(Net(answer)) == "the network does not take one tensor to one tensor"


@pytest.mark.parametrize(
    "answer", [counts_its_calls, counts_through_a_view, replaces_a_buffer], ids=lambda a: a.__name__
)
@pytest.mark.parametrize("shape", [(), (1, 3, 1, 1)], ids=str)
def test_a_network_that_changes_its_own_buffers_is_refused(
    answer: Callable[[Any, Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    net = Net(answer, conv=nn.Conv2d(3, 3, 1), count=torch.ones(shape))
    assert "changes a stored tensor" in refusal(net)


@pytest.mark.parametrize(
    "answer", [computes_in_autocast, asks_for_gradients, branches_in_the_graph], ids=lambda a: a.__name__
)
def test_a_graph_within_the_graph_is_captured_or_refused(answer: Callable[[Any, Tensor], Tensor]) -> None:
    try:
        captured = capture(Net(answer, conv=nn.Conv2d(3, 3, 1)), normal(2, 3, 4, 4))
    except ModelRefused:
        return
    assert captured.module(normal(5, 3, 4, 4)).shape == (5, 3, 4, 4)


def test_the_training_flag_is_restored_after_a_refusal() -> None:
    net = Net(branches_on_values, conv=nn.Conv2d(3, 3, 1)).train()
    refusal(net)
    assert net.training
    assert net.get_submodule("conv").training


@pytest.mark.parametrize(
    "answer",
    [
        lambda net, x: net.conv(x).mean(),
        lambda net, x: net.conv(x) > 0,
        lambda net, x: net.conv(x)[:, :0],
        lambda net, x: 5,
        lambda net, x: None,
        lambda net, x: net.conv.weight,
    ],
    ids=["a mean over the rows", "booleans", "nothing", "a number", "none", "a parameter"],
)
def test_what_is_no_answer_for_each_row_is_refused(answer: Callable[[Any, Tensor], Any]) -> None:
    assert "one tensor" in refusal(Net(answer, conv=nn.Conv2d(3, 3, 1)))
