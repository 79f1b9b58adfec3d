"""Random networks: folded float32 against unfolded float64, for any number of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from service.graph import fold
from service.network.batch_norm import BatchNorm, BatchNorm2d

from .networks import exact, judged, normal, trained

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 6
bounded = settings(
    max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Sum(nn.Module):
    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.left(x)
        y += self.right(x)
        return y


class Concat(Sum):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


@st.composite
def norms(draw: st.DrawFn, channels: int) -> nn.Module:
    """A norm with drawn statistics; gammas and variances may be zero, gammas negative."""
    kind: type[nn.BatchNorm2d | BatchNorm2d] = draw(st.sampled_from([nn.BatchNorm2d, BatchNorm2d]))
    norm = kind(channels, eps=draw(st.sampled_from([1e-5, 1e-3, 0.1])), affine=draw(st.booleans()))
    gammas = st.sampled_from([1.0, -1.0, 0.0, -0.3, 2.5])
    variances = st.sampled_from([1.0, 0.0, 1e-3, 0.5, 40.0])
    norm.drawn = draw(  # type: ignore[assignment]
        st.tuples(*[st.lists(values, min_size=channels, max_size=channels) for values in (gammas, variances)])
    )
    return norm


@st.composite
def linears(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """A convolution or transposed convolution that keeps the size, and its output channels."""
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    out, kernel = groups * draw(st.integers(1, 8 // groups or 1)), draw(st.sampled_from([1, 3]))
    kind = draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d]))
    bias = draw(st.booleans())
    return kind(channels, out, kernel, padding=kernel // 2, groups=groups, bias=bias), out


@st.composite
def branches(draw: st.DrawFn, channels: int, out: int) -> nn.Module:
    """`channels` to `out` channels through convolution, norm and activation, in any order."""
    conv = nn.Conv2d(channels, out, draw(st.sampled_from([1, 3])), padding="same", bias=draw(st.booleans()))
    return nn.Sequential(
        draw(norms(channels)) if draw(st.booleans()) else nn.Identity(),
        conv,
        draw(norms(out)) if draw(st.booleans()) else nn.Identity(),
    )


@st.composite
def blocks(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """One step of a network and the channels that come out of it."""
    kind = draw(st.sampled_from(["linear", "norm", "relu", "sum", "concat", "pool"]))
    if kind == "linear":
        return draw(linears(channels))
    if kind == "norm":
        return draw(norms(channels)), channels
    if kind == "sum":
        out = draw(st.integers(1, 6))
        return Sum(draw(branches(channels, out)), draw(branches(channels, out))), out
    if kind == "concat":
        return Concat(draw(branches(channels, 2)), nn.Identity()), channels + 2
    if kind == "pool":
        pools: list[Callable[[], nn.Module]] = [
            lambda: nn.MaxPool2d(3, 1, 1),
            lambda: nn.AvgPool2d(3, 1, 1),
            lambda: nn.Dropout(0.5),
        ]
        return draw(st.sampled_from(pools))(), channels
    return nn.ReLU(inplace=True), channels


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A few blocks and a head; every norm is drawn anew, so each is called once."""
    # Nothing in place on the input itself: see test_capture_in_place.py.
    start, channels = draw(linears(3)) if draw(st.booleans()) else (draw(norms(3)), 3)
    steps = [start]
    for _ in range(draw(st.integers(1, 4))):
        step, channels = draw(blocks(channels))
        steps.append(step)
    if draw(st.booleans()):
        steps += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]
        steps.append(nn.BatchNorm1d(5) if draw(st.booleans()) else nn.ReLU())
    return with_drawn_statistics(trained(nn.Sequential(*steps), seed=draw(st.integers(0, 99))))


@torch.no_grad()
def with_drawn_statistics(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(drawn := getattr(module, "drawn", None), tuple):
            state, (gammas, variances) = module.state_dict(), drawn
            state["running_var"].copy_(torch.tensor(variances))
            if "weight" in state:
                state["weight"].copy_(torch.tensor(gammas))
    return net


@bounded
@given(networks())
def test_a_random_network_folds_exactly_with_one_outcome_per_norm(net: nn.Module) -> None:
    norm_names = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | BatchNorm)
    ]
    report = judged(net, 3, SIZE, SIZE)
    assert sorted(layer.name for layer in report.layers) == sorted(norm_names)
    assert all((layer.partner is None) == (layer.outcome == "kept") for layer in report.layers)
    assert all(layer.reason for layer in report.layers)


@settings(bounded, max_examples=8)
@given(networks(), st.integers(1, 6))
def test_the_answer_of_a_row_does_not_depend_on_the_batch(net: nn.Module, rows: int) -> None:
    module = fold(net, normal(2, 3, SIZE, SIZE)).module
    x = normal(rows, 3, SIZE, SIZE, seed=rows)
    alone = torch.cat([module(row) for row in x.chunk(rows)])
    scale = float(exact(net, x).abs().max()) or 1.0
    assert float((module(x) - alone).abs().max()) / scale <= 1e-5
