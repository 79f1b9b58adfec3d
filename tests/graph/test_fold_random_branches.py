"""Random networks of branches: sums, differences, shared values and shared modules, against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from service.network.batch_norm import BatchNorm2d

from .networks import judged, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C, SIZE = 4, 6
ROW = (C, SIZE, SIZE)
bounded = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Norm(nn.Module):
    """A norm as people write it out by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean = nn.Buffer(torch.zeros(channels))
        self.running_var = nn.Buffer(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            t.reshape(1, -1, 1, 1) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        y: Tensor = (x - mean) / torch.sqrt(var + 1e-3) * weight + bias
        return y


NORMS = (nn.BatchNorm2d, BatchNorm2d, Norm)


class Step(nn.Module):
    """One step of a program: reads values by number, and gives one more."""

    def __init__(
        self, kind: str, reads: Sequence[int], part: nn.Module | None = None, signs: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.kind, self.reads, self.signs, self.part = kind, reads, signs, part

    def forward(self, *values: Tensor) -> Tensor:
        if self.part is not None:
            answer: Tensor = self.part(torch.cat(values, 1) if len(values) > 1 else values[0])
            return answer
        return JOINS[self.kind](values, self.signs)

    def extra_repr(self) -> str:
        return f"{self.kind} of {self.reads}, {self.signs}"


def _signed_sum(values: Sequence[Tensor], signs: Sequence[int]) -> Tensor:
    """A sum in the order and nesting in which it was drawn; a sign of 2 adds in place."""
    total = values[0] + 0 if signs and signs[0] == 2 else values[0]
    for value, sign in zip(values[1:], signs, strict=False):
        if sign == 2:
            total += value
        else:
            total = total + value if sign > 0 else total - value if sign == -1 else value - total
    return total


JOINS: dict[str, Callable[[Sequence[Tensor], Sequence[int]], Tensor]] = {
    "sum": _signed_sum,
    "product": lambda values, _: values[0] * values[1].sigmoid(),
    "halves": lambda values, _: torch.cat([values[0].chunk(2, 1)[1], values[-1].chunk(2, 1)[0]], 1),
    "double": lambda values, _: torch.add(values[0], values[-1], alpha=2),
    "shuffle": lambda values, _: F.channel_shuffle(values[0], 2),
    "negative": lambda values, _: -values[0],
    "mean": lambda values, _: values[0] - values[-1].mean((2, 3), keepdim=True),
}
UNARY = {"shuffle", "negative"}


class Program(nn.Module):
    """Steps, each of which reads what earlier steps gave; what nobody reads is summed up in the end."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Tensor:
        values, unread = [x], {0}
        for step in self.steps:
            reads: Any = step.reads
            unread -= set(reads)
            unread.add(len(values))
            values.append(step(*[values[number] for number in reads]))
        first, *others = sorted(unread)
        answer = values[first]
        for number in others:
            answer = torch.maximum(answer, values[number])  # a join that no norm passes
        return answer

    @property
    def calls(self) -> int:
        """How many norms it computes."""
        return sum(isinstance(module, NORMS) for step in self.steps for module in step.modules())


class Scale(nn.Module):
    """A layer scale: zero and negative factors among them."""

    def __init__(self, factors: list[float]) -> None:
        super().__init__()
        self.factors = nn.Buffer(torch.tensor(factors).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.factors
        return y


class Offset(nn.Module):
    """A constant of the shape of one row is added."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1, *ROW))

    def forward(self, x: Tensor) -> Tensor:
        return self.offset + x


class Strided(nn.Module):
    """Convolutions with stride 2 of one value, summed and brought back to its size."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [part(x) for part in self.parts]
        for other in others:
            first = first - other
        return F.interpolate(first, scale_factor=2.0)


@st.composite
def norms(draw: st.DrawFn, channels: int = C) -> nn.Module:
    """A norm with drawn statistics; gammas may be zero or negative, variances small."""
    norm: nn.Module = draw(st.sampled_from(NORMS))(channels)
    sign = draw(st.sampled_from(["any", "positive"]))
    gammas = st.sampled_from([1.0, -1.0, 0.0, -0.3, 2.5] if sign == "any" else [1.0, 0.3, 2.5])
    variances = st.sampled_from([1.0, 0.02, 0.1, 0.5, 40.0])
    norm.drawn = draw(  # type: ignore[assignment]
        st.tuples(*[st.lists(values, min_size=channels, max_size=channels) for values in (gammas, variances)])
    )
    return norm


KERNELS: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (1, 3), "padding": (0, 1)},
    {"kernel_size": (3, 1), "padding": (1, 0)},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 2, "padding": "same"},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


@st.composite
def convs(draw: st.DrawFn, channels: int = C, options: dict[str, Any] | None = None) -> nn.Module:
    given = options or draw(st.sampled_from(KERNELS))
    groups = draw(st.sampled_from([1, 1, 2, C])) if channels == C else 1
    return nn.Conv2d(channels, C, groups=groups, bias=draw(st.booleans()), **given)


@st.composite
def strided(draw: st.DrawFn) -> nn.Module:
    shapes: list[dict[str, Any]] = [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1},
        {"kernel_size": 2},
        {"kernel_size": (1, 3), "padding": (0, 1)},
    ]
    parts: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.sampled_from(shapes))
        part: nn.Module = draw(convs(C, {"stride": 2, **shape}))
        before = [draw(norms())] if draw(st.integers(0, 3)) == 0 else []
        behind = [draw(norms())] if draw(st.booleans()) else []
        parts.append(nn.Sequential(*before, part, *behind))
    return Strided(parts)


@st.composite
def pieces(draw: st.DrawFn) -> nn.Module:
    """What reads one value: a convolution or a norm more often than anything else."""
    kind = draw(st.sampled_from(["conv"] * 4 + ["norm"] * 4 + ["scale", "offset", "activation", "pool"]))
    if kind == "conv":
        return draw(convs())
    if kind == "norm":
        return draw(norms())
    if kind == "scale":
        return Scale(draw(st.lists(st.sampled_from([0.5, -2.0, 1.0, 0.0]), min_size=C, max_size=C)))
    if kind == "offset":
        return Offset()
    if kind == "activation":
        makers: list[Callable[[], nn.Module]] = [
            nn.ReLU,
            nn.ReLU6,
            nn.Sigmoid,
            lambda: nn.LeakyReLU(0.1),
            lambda: nn.Hardtanh(-0.5, 0.8),
        ]
        return draw(st.sampled_from(makers))()
    pools: list[Callable[[], nn.Module]] = [
        lambda: nn.MaxPool2d(3, 1, 1),
        lambda: nn.AvgPool2d(3, 1, 1),
        lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    ]
    return draw(st.sampled_from(pools))()


class Writer:
    """A program while it is drawn; every module may be called again later on."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.steps: list[Step] = []
        self._draw = draw
        self._shared: list[nn.Module] = []

    def gave(
        self, kind: str, reads: Sequence[int], part: nn.Module | None = None, signs: Sequence[int] = ()
    ) -> int:
        """One more step; the answer is the number of the value that it gives."""
        self.steps.append(Step(kind, reads, part, signs))
        return len(self.steps)

    def piece(self, read: int) -> int:
        """A new module or one that was called before reads a value."""
        is_again = self._shared and self._draw(st.integers(0, 7)) == 0
        part = self._draw(st.sampled_from(self._shared)) if is_again else self._draw(pieces())
        self._shared.append(part)
        return self.gave("part", [read], part)

    def any_value(self) -> int:
        """The number of one of the last values."""
        return self._draw(st.integers(max(0, len(self.steps) - 4), len(self.steps)))

    def branches(self, start: int) -> None:
        """A sum of branches that read one value."""
        ends = []
        for _ in range(self._draw(st.integers(2, 4))):
            end = start
            for _ in range(self._draw(st.sampled_from([0, 1, 1, 1, 2, 2]))):
                end = self.piece(end)
            ends.append(end)
        signs = st.lists(st.sampled_from([1, 1, -1, -2, 2]), min_size=3, max_size=3)
        self.gave("sum", ends, signs=self._draw(signs))

    def block(self) -> None:
        """One block: branches more often than anything else."""
        draw, start = self._draw, self.any_value()
        kind = draw(st.sampled_from(["branches"] * 4 + ["pieces", "strided", "cat", "join", "activated"]))
        if kind == "branches":
            self.branches(start)
        elif kind == "pieces":
            self.piece(self.piece(start))
        elif kind == "strided":
            self.gave("strided", [start], draw(strided()))
        elif kind == "cat":
            part = nn.Sequential(draw(norms(2 * C)), draw(convs(2 * C)))
            self.gave("part", [start, self.any_value()], part)
        elif kind == "activated":
            self.gave("part", [start], nn.Sequential(draw(norms()), nn.ReLU(), draw(convs())))
        else:
            join = draw(st.sampled_from(sorted(JOINS.keys() - {"sum"})))
            self.gave(join, [start] if join in UNARY else [start, self.any_value()])


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A few blocks with drawn numbers."""
    writer = Writer(draw)
    for _ in range(draw(st.integers(1, 3))):
        writer.block()
    return with_drawn_statistics(trained(Program(writer.steps), seed=draw(st.integers(0, 99))))


@torch.no_grad()
def with_drawn_statistics(program: Program) -> Program:
    for module in program.modules():
        if isinstance(drawn := getattr(module, "drawn", None), tuple):
            state, (gammas, variances) = module.state_dict(), drawn
            state["running_var"].copy_(torch.tensor(variances))
            state["weight"].copy_(torch.tensor(gammas))
    return program


@bounded
@given(programs())
def test_a_random_network_of_branches_folds_exactly_and_no_fold_is_undone(program: Program) -> None:
    report = judged(program, *ROW)
    assert len(report.layers) == program.calls
    for layer in report.layers:
        assert layer.reason
        assert "undone" not in layer.reason, layer
        assert (layer.partner is None) == (layer.outcome == "kept")
