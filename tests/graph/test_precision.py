"""One graph in any precision: stored tensors and casts in that dtype, integers as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from service.graph.capture import capture
from service.graph.precision import astype, compute, in_dtype
from service.graph.stored_tensors import attribute, stored_tensors

from .networks import Net, exact, normal, trained


def picked() -> Net:
    return trained(
        Net(lambda net, x: net.conv(x)[:, net.order], conv=nn.Conv2d(3, 4, 1), order=torch.tensor([3, 0]))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_stored_tensors_are_rounded_and_integers_stay(dtype: torch.dtype) -> None:
    module = astype(capture(picked(), normal(2, 3, 4, 4)).module, dtype)
    dtypes = {name: tensor.dtype for name, tensor in stored_tensors(module).items()}
    assert dtypes == {"conv.weight": dtype, "conv.bias": dtype, "order": torch.int64}
    assert module(normal(3, 3, 4, 4).to(dtype)).dtype == dtype


def test_float64_computes_what_the_network_computes_in_float64() -> None:
    x = normal(3, 3, 4, 4, seed=1)
    module = astype(capture(picked(), x).module, torch.float64)
    assert_close(module(x.double()), exact(picked(), x), rtol=1e-14, atol=1e-14)


def test_the_graph_that_was_given_is_unchanged() -> None:
    module = capture(picked(), normal(2, 3, 4, 4)).module
    before = str(module.graph)
    astype(module, torch.float16)
    assert str(module.graph) == before
    assert attribute(module, "conv.weight").dtype == torch.float32


@pytest.mark.parametrize("cast", [torch.float32, torch.float16, torch.float64])
def test_casts_of_the_network_become_casts_to_the_precision(cast: torch.dtype) -> None:
    net = Net(lambda net, x: (x.to(cast) + torch.zeros(1, dtype=cast)) * 3)
    x = normal(3, 5).double()
    assert torch.equal(astype(capture(net, normal(2, 5)).module, torch.float64)(x), x * 3)


def test_a_cast_to_an_integer_stays() -> None:
    module = astype(capture(Net(lambda net, x: x.to(torch.int64)), normal(2, 5)).module, torch.float64)
    assert module(normal(3, 5).double()).dtype == torch.int64


def hidden_state(net: Any, x: Tensor) -> Any:
    return net.fc(torch.zeros(x.shape[0], 3)) + net.fc(x)


def padded_channels(net: Any, x: Tensor) -> Any:
    return net.fc(torch.cat([x, torch.ones(x.shape[0], 1)], 1)[:, 1:])


def kernel_of_the_forward(net: Any, x: Tensor) -> Any:
    return nn.functional.linear(x, torch.ones(2, 3) / 3)


@pytest.mark.parametrize(
    "answer", [hidden_state, padded_channels, kernel_of_the_forward], ids=lambda answer: answer.__name__
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_tensors_made_in_the_forward_follow_the_precision(answer: Any, dtype: torch.dtype) -> None:
    net = trained(Net(answer, fc=nn.Linear(3, 4)))
    x = normal(3, 3, seed=1)
    answered = astype(capture(net, normal(2, 3)).module, dtype)(x.to(dtype))
    assert answered.dtype == dtype
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-6
    assert_close(answered.double(), exact(net, x), rtol=tolerance, atol=tolerance)


def test_only_floating_point_dtypes_of_a_call_are_replaced() -> None:
    given = {"dtype": torch.float16, "shape": [2, 3], "nested": (torch.int8, [torch.float32])}
    expected = {"dtype": torch.float64, "shape": [2, 3], "nested": (torch.int8, [torch.float64])}
    assert in_dtype(given, torch.float64) == expected


class Casting(nn.Module):
    """Casts of its own, integers among its arguments, lists of tensors, a weight that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.order = nn.Conv2d(3, 4, 1), nn.Buffer(torch.tensor([3, 0, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.conv(x)[:, :3]).to(torch.float32)[:, self.order]
        return torch.cat([y, y.float() * self.conv.weight.mean()], 1).mean((2, 3), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_computing_in_a_precision_answers_as_the_copy_in_that_precision_bit_for_bit(
    dtype: torch.dtype,
) -> None:
    x = normal(3, 3, 4, 4, seed=1)
    module = capture(trained(Casting()), x).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.inference_mode():
        answer = compute(module, x, dtype)
        assert answer.dtype == dtype
        assert torch.equal(answer, astype(module, dtype)(x.to(dtype)))
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32, torch.int64}
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_an_error_of_the_network_is_told_in_its_own_words() -> None:
    module = capture(picked(), normal(2, 3, 4, 4)).module
    with pytest.raises(RuntimeError) as caught:
        compute(module, normal(2, 5, 4, 4), torch.float64)
    assert "Traceback" not in str(caught.value)
    assert "File" not in str(caught.value)
