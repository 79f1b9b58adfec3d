"""Which values are `scale * x + shift` per channel, and with what scale and shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph.capture import capture
from service.graph.chains import AffineChain, chains
from service.graph.constants import Constants

from .networks import Net, exact, normal, positive, relative_error, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[Any, Tensor], Any]


def found(net: nn.Module, *row: int) -> list[AffineChain]:
    module = capture(net, normal(2, *row)).module
    return chains(module.graph, Constants(module))


def assert_is(chain: AffineChain, net: nn.Module, *row: int) -> None:
    """Scale and shift of the chain are those of the whole network in float64."""
    x = normal(3, *row, seed=7)
    answer = chain.affine.scale * x.double() + chain.affine.shift
    assert relative_error(exact(net, x), answer) < 1e-14


def axis_of(chain: AffineChain) -> int | None:
    return next(iter(chain.affine.axes), None)


def names(chain: AffineChain) -> list[str]:
    return [norm.name for norm in chain.norms]


def parts() -> dict[str, Tensor]:
    return {"c": positive(4, 1, 1), "d": normal(4, 1, 1, seed=1), "w": positive(6), "one": positive(1)}


@pytest.mark.parametrize(
    ("answer", "axis"),
    [
        (lambda net, x: x + net.c, 1),
        (lambda net, x: net.c + x, 1),
        (lambda net, x: x - net.c, 1),
        (lambda net, x: net.c - x, 1),
        (lambda net, x: x * net.c, 1),
        (lambda net, x: net.c * x, 1),
        (lambda net, x: x / net.c, 1),
        (lambda net, x: -x, None),
        (lambda net, x: x + 2, None),
        (lambda net, x: 2 - x, None),
        (lambda net, x: x * 0.5, None),
        (lambda net, x: x / 3, None),
        (lambda net, x: x * net.one, None),
        (lambda net, x: x * net.w, 3),
        (lambda net, x: x * net.w.view(6, 1), 2),
        (lambda net, x: x * net.c.view(1, 4, 1, 1), 1),
        (lambda net, x: net.d - 2 * (x / net.c - 1) * net.d, 1),
        (lambda net, x: x.mul(net.c).neg().add(net.one), 1),
    ],
    ids=[
        *("x + c", "c + x", "x - c", "c - x", "x * c", "c * x", "x / c", "-x", "x + 2", "2 - x", "x * 0.5"),
        *("x / 3", "one number", "last axis", "axis 2", "all axes", "several steps", "methods"),
    ],
)
def test_arithmetic_with_a_constant_per_channel_is_one_chain(answer: Answer, axis: int | None) -> None:
    net = Net(answer, **parts())
    (chain,) = found(net, 4, 6, 6)
    assert axis_of(chain) == axis
    assert chain.norms == ()
    assert_is(chain, net, 4, 6, 6)


@pytest.mark.parametrize(
    "answer",
    [
        lambda net, x: net.c / x,
        lambda net, x: x * net.spatial,
        lambda net, x: x * net.plane,
        lambda net, x: torch.add(x, net.c, alpha=2),
        lambda net, x: torch.sub(x, net.c, alpha=2),
        lambda net, x: torch.div(x, net.c, rounding_mode="floor"),
        lambda net, x: x * x,
        lambda net, x: x * x.mean(1, keepdim=True),
        lambda net, x: x**2,
        lambda net, x: x[:, :1] * net.c,
        lambda net, x: x * net.order.view(4, 1, 1),
    ],
    ids=[
        *("c / x", "spatial constant", "constant per pixel", "add with alpha", "sub with alpha"),
        *("rounded division", "x * x", "gate", "power", "constant that widens x", "integers"),
    ],
)
def test_what_is_not_affine_per_channel_is_no_chain(answer: Answer) -> None:
    more = {"spatial": normal(4, 6, 6), "plane": normal(6, 6), "order": torch.arange(4)}
    assert found(Net(answer, **parts(), **more), 4, 6, 6) == []


@pytest.mark.parametrize(
    "answer",
    [lambda net, x: torch.rsub(x, 3, alpha=2), lambda net, x: torch.add(x, 3, alpha=2)],
    ids=["rsub", "add"],
)
def test_a_scalar_with_alpha_is_right_or_no_chain(answer: Answer) -> None:
    for chain in found(Net(answer), 4, 6, 6):
        assert_is(chain, Net(answer), 4, 6, 6)


@pytest.mark.parametrize("row", [(4,), (4, 4), (4, 4, 4), (4, 4, 4, 4)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_is_a_chain_over_axis_1(row: tuple[int, ...], affine: bool) -> None:
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}[len(row)]
    net = trained(nn.Sequential(norm(4, affine=affine)))
    (chain,) = found(net, *row)
    assert (axis_of(chain), names(chain)) == (1, ["0"])
    assert_is(chain, net, *row)


def test_a_norm_after_a_decomposition_is_the_same_chain() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = torch.zeros_like(x)
        y[:, 0] = 1  # only decompositions make this functional
        return net.bn(x) + y

    (chain,) = found(trained(Net(answer, bn=nn.BatchNorm2d(4))), 4, 6, 6)
    assert names(chain) == ["bn"]
    assert_is(chain, trained(nn.Sequential(nn.BatchNorm2d(4))), 4, 6, 6)


def test_a_chain_stops_at_a_value_with_two_readers() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.first(x)
        return net.second(y) * y

    first, second = found(trained(Net(answer, first=nn.BatchNorm2d(4), second=nn.BatchNorm2d(4))), 4, 6, 6)
    assert (names(first), names(second)) == (["first"], ["second"])
    assert second.input is first.output


def test_a_reader_of_the_shape_alone_does_not_stop_a_chain() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = x * net.c
        return (y + net.d).reshape(y.shape[0], -1)

    (chain,) = found(Net(answer, **parts()), 4, 6, 6)
    assert chain.affine.scale.shape == (1, 4, 1, 1)


def test_steps_on_different_axes_are_two_chains() -> None:
    first, second = found(Net(lambda net, x: x * net.c * net.w, **parts()), 4, 6, 6)
    assert (axis_of(first), axis_of(second)) == (1, 3)
