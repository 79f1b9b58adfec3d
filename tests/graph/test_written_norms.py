"""A norm that is written out by hand is shown only where it proves to be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph.capture import capture
from service.graph.written_norms import written_norms

from .networks import Net, normal, positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.network.batch_norm import BatchNorm


def per_channel(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


class Written(nn.Module):
    """A norm with four vectors of any names, and a forward of its own."""

    def __init__(self, answer: Callable[[Any, Tensor], Tensor], **vectors: Tensor) -> None:
        super().__init__()
        self.answer = answer
        for name, vector in vectors.items():
            self.register_buffer(name, vector)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self, x)


def found(norm: nn.Module) -> dict[str, BatchNorm]:
    network = Net(lambda net, x: net.norm(net.conv(x)).relu(), conv=nn.Conv2d(3, 4, 1), norm=norm)
    return written_norms(capture(network, torch.zeros(2, 3, 5, 5)), {})


def divided(norm: Any, x: Tensor) -> Tensor:
    root = torch.sqrt(per_channel(norm.var) + 1e-4)
    return (x - per_channel(norm.mean)) / root * per_channel(norm.gamma) + per_channel(norm.beta)


def frozen(norm: Any, x: Tensor) -> Tensor:
    scale = norm.weight * (norm.running_var + 1e-5).rsqrt()
    return x * per_channel(scale) + per_channel(norm.bias - norm.running_mean * scale)


def bare(norm: Any, x: Tensor) -> Tensor:
    return (x - per_channel(norm.mean)) * torch.rsqrt(per_channel(norm.var))


VECTORS = {"mean": normal(4, seed=1), "var": positive(4, seed=2)}
NAMED = {**VECTORS, "gamma": normal(4, seed=3), "beta": normal(4, seed=4)}
USUAL = dict(zip(("running_mean", "running_var", "weight", "bias"), NAMED.values(), strict=True))


@pytest.mark.parametrize(
    ("norm", "eps"), [(Written(divided, **NAMED), 1e-4), (Written(frozen, **USUAL), 1e-5)]
)
def test_its_vectors_and_its_eps_are_read_from_the_graph(norm: Written, eps: float) -> None:
    ((name, layer),) = found(norm).items()
    assert (name, layer.eps, layer.momentum, layer.num_batches_tracked) == ("norm", eps, None, None)
    for vector, expected in USUAL.items():
        assert torch.equal(getattr(layer, vector), expected)
    x = normal(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), norm(x))


def test_one_without_weight_bias_and_eps_is_one_too() -> None:
    layer = found(Written(bare, **VECTORS))["norm"]
    assert (layer.eps, layer.weight, layer.bias, layer.affine) == (0.0, None, None, False)


def test_a_norm_with_other_arithmetic_is_not_shown_as_one() -> None:
    twice = Written(lambda norm, x: divided(norm, x) * 2.0, **NAMED)
    assert found(twice) == {}


def test_vectors_with_other_names_are_not_guessed_at() -> None:
    def other(norm: Any, x: Tensor) -> Tensor:
        return (x - per_channel(norm.a)) / torch.sqrt(per_channel(norm.b) + 1e-5)

    assert found(Written(other, a=VECTORS["mean"], b=VECTORS["var"])) == {}


def test_what_is_known_already_is_not_found_again() -> None:
    network = Net(
        lambda net, x: net.norm(net.conv(x)), conv=nn.Conv2d(3, 4, 1), norm=Written(frozen, **USUAL)
    )
    captured = capture(network, torch.zeros(2, 3, 5, 5))
    assert written_norms(captured, {"norm"}) == {}


def test_a_batch_norm_of_torch_is_none() -> None:
    assert found(nn.BatchNorm2d(4)) == {}
