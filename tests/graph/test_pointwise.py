"""Clamps change places with maps per channel: both identities against direct computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from service.graph import pointwise
from service.graph.affine import Affine
from service.graph.capture import capture
from service.graph.constants import Constants
from service.graph.pointwise import Clamp

from .networks import Net, normal

if TYPE_CHECKING:
    from collections.abc import Callable

bounded = settings(max_examples=100, derandomize=True, deadline=None)
scales = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-3]), st.floats(-4, 4).filter(lambda s: abs(s) > 1e-3))
BOUNDS = [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 2.0), (-0.3, math.inf), (0.1, 0.1)]


@st.composite
def maps(draw: st.DrawFn) -> Affine:
    """A map per channel of a value `[N, C, L]`; scales may be zero or negative."""
    channels = draw(st.integers(1, 4))
    scale = draw(st.lists(scales, min_size=channels, max_size=channels))
    shift = draw(st.lists(st.floats(-3, 3), min_size=channels, max_size=channels))
    one = torch.tensor(scale, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)
    return Affine.along(1, 3, *one)


def clamp_of(low: float, high: float) -> Clamp:
    return Clamp(*(torch.full((1, 1, 1), bound, dtype=torch.float64) for bound in (low, high)))


def clamped(clamp: Clamp, x: Tensor) -> Tensor:
    return torch.maximum(clamp.low, torch.minimum(clamp.high, x))


def mapped(affine: Affine, x: Tensor) -> Tensor:
    return affine.scale * x + affine.shift


def values(affine: Affine) -> Tensor:
    """Values on both sides of every bound, within float32."""
    grid = torch.linspace(-40, 40, 401, dtype=torch.float64)
    return torch.cat([grid, normal(100).double()]).expand(1, affine.scale.shape[1], -1)


@bounded
@given(maps(), st.sampled_from(BOUNDS))
def test_a_map_after_a_clamp_is_a_clamp_after_the_map(affine: Affine, bounds: tuple[float, float]) -> None:
    clamp, x = clamp_of(*bounds), values(affine)
    after = clamp.after(affine)
    assert bool((after.low <= after.high).all())
    torch.testing.assert_close(
        clamped(after, mapped(affine, x)), mapped(affine, clamped(clamp, x)), rtol=1e-12, atol=1e-12
    )


@bounded
@given(maps(), st.sampled_from(BOUNDS))
def test_a_clamp_after_a_map_is_a_map_after_a_clamp(affine: Affine, bounds: tuple[float, float]) -> None:
    clamp, x = clamp_of(*bounds), values(affine)
    earlier, later = clamp.before(affine)
    # The bounds are float32 numbers: that much the shift may move.
    tolerance = 1e-6 * float(1 + affine.shift.abs().max() + affine.scale.abs().max())
    torch.testing.assert_close(
        mapped(later, clamped(earlier, x)), clamped(clamp, mapped(affine, x)), rtol=1e-6, atol=tolerance
    )


@bounded
@given(maps(), st.sampled_from([(0.0, math.inf), (0.0, 6.0)]))
def test_what_is_clamped_below_ends_exactly_on_the_bound(affine: Affine, bounds: tuple[float, float]) -> None:
    clamp = clamp_of(*bounds)
    earlier, later = clamp.before(affine)
    alive = affine.scale != 0
    # Far beyond the bound, in float32 as the engine clamps it.
    x = torch.where(affine.scale > 0, -1e6, 1e6).float()
    in_float32 = torch.maximum(earlier.low.float(), torch.minimum(earlier.high.float(), x))
    assert bool((mapped(later, in_float32.double()) == 0)[alive].all())


@bounded
@given(maps(), st.sampled_from(BOUNDS))
def test_the_bounds_before_a_map_are_float32_numbers(affine: Affine, bounds: tuple[float, float]) -> None:
    earlier, _ = clamp_of(*bounds).before(affine)
    for bound in (earlier.low, earlier.high):
        assert torch.equal(bound, bound.float().double())
        assert not bool(bound.isnan().any())


def test_a_dead_channel_is_a_constant_on_either_side() -> None:
    dead = Affine.along(1, 3, torch.zeros(3), torch.tensor([-2.0, 0.5, 9.0]))
    clamp, x = clamp_of(0, 6), normal(2, 3, 5).double()
    earlier, later = clamp.before(dead)
    expected = torch.tensor([0.0, 0.5, 6.0], dtype=torch.float64).reshape(1, 3, 1).expand(2, 3, 5)
    assert torch.equal(mapped(later, clamped(earlier, x)), expected)
    assert torch.equal(clamp.after(dead).low, dead.shift)
    assert torch.equal(clamp.after(dead).high, dead.shift)


def test_a_negative_scale_turns_a_lower_bound_into_an_upper_one() -> None:
    after = clamp_of(0, math.inf).after(Affine.along(1, 3, torch.tensor([-2.0]), torch.tensor([3.0])))
    assert after.low.item() == -math.inf
    assert after.high.item() == 3


def test_clamps_are_equal_where_their_bounds_are() -> None:
    relu = clamp_of(0, math.inf)
    assert relu.after(Affine.along(1, 3, torch.tensor([2.0, 0.5]), torch.zeros(1))).equals(relu)
    assert not relu.after(Affine.along(1, 3, torch.tensor([2.0, 0.5]), torch.tensor([0, 1e-3]))).equals(relu)
    assert not relu.equals(clamp_of(0, 6))


def found(net: nn.Module, row: tuple[int, ...] = (4, 6)) -> list[Clamp]:
    captured = capture(net, normal(2, *row)).module
    constants = Constants(captured)
    return [clamp for node in captured.graph.nodes if (clamp := Clamp.at(node, constants)) is not None]


@pytest.mark.parametrize(
    ("module", "bounds"),
    [
        (nn.ReLU(), (0, math.inf)),
        (nn.ReLU(inplace=True), (0, math.inf)),
        (nn.ReLU6(), (0, 6)),
        (nn.Hardtanh(), (-1, 1)),
        (nn.Hardtanh(-2, 0.5), (-2, 0.5)),
        (Net(lambda _, x: x.clamp(-1, 2)), (-1, 2)),
        (Net(lambda _, x: x.clamp(max=2)), (-math.inf, 2)),
        (Net(lambda _, x: x.clamp(min=-2)), (-2, math.inf)),
        (Net(lambda _, x: x.clamp_min(0.5)), (0.5, math.inf)),
    ],
)
def test_activations_with_corners_are_clamps(module: nn.Module, bounds: tuple[float, float]) -> None:
    (clamp,) = found(nn.Sequential(nn.Conv1d(4, 4, 1), module))
    assert (clamp.low.item(), clamp.high.item()) == bounds


@pytest.mark.parametrize(
    "module", [nn.GELU(), nn.Sigmoid(), nn.LeakyReLU(0.1), nn.SiLU(), Net(lambda _, x: x.clamp(max=x * x))]
)
def test_other_activations_and_computed_bounds_are_no_clamps(module: nn.Module) -> None:
    assert found(module) == []


def pool_of(pool: Callable[[Tensor], Tensor]) -> fx.Node:
    graph = capture(Net(lambda _, x: pool(x)), normal(2, 4, 6, 6)).module.graph
    nodes: list[fx.Node] = [node for node in graph.nodes if node.op == "call_function"]
    (node,) = filter(pointwise.is_pool, nodes)
    return node


def along(axis: int, *scale: float, shift: float = 0.5) -> Affine:
    return Affine.along(axis, 4, torch.tensor(scale), torch.tensor([shift]))


F = nn.functional


@pytest.mark.parametrize(
    ("pool", "affine", "reason"),
    [
        (lambda x: F.max_pool2d(x, 2), along(1, 1, 2, 0, 4), None),
        (lambda x: F.max_pool2d(x, 2), along(1, 1, 2, -3, 4), "negative scale"),
        (lambda x: F.avg_pool2d(x, 2), along(1, 1, -2, 3, 4), None),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), along(1, 1, 2, 3, 4), "padded zeros"),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), along(1, 1, -2, 3, 4, shift=0), None),
        (lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), along(1, 1, 2, 3, 4), None),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), along(1, 1, 2, 3, 4), "padded zeros"),
        (lambda x: F.adaptive_avg_pool2d(x, 2), along(1, -1, 2, 3, 4), None),
        (lambda x: F.adaptive_avg_pool2d(x, 2), along(2, *range(6)), "axes that are pooled"),
        (lambda x: x.mean((2, 3), keepdim=True), along(3, *range(6)), "axes that are pooled"),
        (lambda x: x.mean(3, keepdim=True), along(2, *range(6)), None),
        (lambda x: F.interpolate(x, scale_factor=2), along(3, *range(6)), "axes that are pooled"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), along(1, -1, 0, 3, 4), None),
    ],
)
def test_a_pool_refuses_only_maps_that_do_not_commute(
    pool: Callable[[Tensor], Tensor], affine: Affine, reason: str | None
) -> None:
    refusal = pointwise.refuses(pool_of(pool), affine)
    assert refusal is None if reason is None else reason in str(refusal)
    x = normal(1, 4, 6, 6).double()
    if reason is None:
        torch.testing.assert_close(pool(mapped(affine, x)), mapped(affine, pool(x)), rtol=1e-12, atol=1e-12)


def test_a_mean_that_drops_axes_drops_them_from_the_map() -> None:
    node = pool_of(lambda x: x.mean((2, 3)))
    affine = along(1, 1, 2, 3, 4)
    after = pointwise.through_mean(node, affine, backward=False)
    assert list(after.scale.shape) == [1, 4]
    assert torch.equal(pointwise.through_mean(node, after, backward=True).scale, affine.scale)


def test_a_mean_over_the_rows_of_a_batch_is_no_pool() -> None:
    graph = capture(Net(lambda _, x: x + x.mean(0, keepdim=True)), normal(2, 4, 6)).module.graph
    assert not any(pointwise.is_pool(node) for node in graph.nodes)
