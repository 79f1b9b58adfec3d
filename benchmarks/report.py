"""The report of a run: a table for each cell, and what the service must show beside what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from samples import Cell, Samples, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from samples import Sample, Spread

REFERENCES = {"digits": "bare"}
"""What a network's tables compare with: small networks with HTTP alone, others with the engine alone."""


def reference_of(network: str) -> str:
    """The contender that the tables of `network` compare with, where nobody asked for another."""
    return REFERENCES.get(network, "in-process")


def table(samples: Samples, cell: Cell, reference: str) -> Iterator[str]:
    """A Markdown table of one cell."""
    yield f"\n**{cell.network}, {cell.payload}, concurrency {cell.concurrency}**\n"
    yield (
        "| contender | requests/s (quartiles) | p50 ms | p99 ms | CPU ms/request | MiB | failed "
        f"| of {reference} (quartiles) |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for contender in samples.contenders(cell):
        yield _row(samples, cell, contender, reference)


def _row(samples: Samples, cell: Cell, contender: str, reference: str) -> str:
    windows = samples.of(cell, contender)
    ratios = samples.ratios(cell, contender, reference)
    cells = [
        contender,
        _shown(spread(w.per_second for w in windows)),
        *(_number(spread(values)[1]) for values in _columns(windows)),
        f"{max(w.mib for w in windows):.0f}",
        str(sum(w.failed for w in windows)),
        _shown(spread(ratios), "{:.2f}") if ratios else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _columns(windows: list[Sample]) -> list[list[float]]:
    return [[w.p50_ms for w in windows], [w.p99_ms for w in windows], [w.cpu_ms for w in windows]]


@dataclass(frozen=True)
class Target:
    """One line of what the service must show."""

    words: str
    network: str
    bound: float
    is_floor: bool
    values: Callable[[Samples], list[float]]
    """One for each round; empty where it was not measured."""

    def line(self, samples: Samples) -> str | None:
        """`target 0.95, measured 0.97`; None where nothing was measured."""
        values = self.values(samples)
        if not values:
            return None
        low, middle, high = spread(values)
        holds = middle >= self.bound if self.is_floor else middle <= self.bound
        sign = "at least" if self.is_floor else "at most"
        return (
            f"- {'holds' if holds else 'MISSED'}: {self.words}: target {sign} {self.bound:g}, "
            f"measured {middle:.2f} ({low:.2f} .. {high:.2f})"
        )


def _rate(cell: Cell, to: str) -> Callable[[Samples], list[float]]:
    return lambda samples: samples.ratios(cell, "foldserve", to)


def _best_rate(cell: Cell, others: tuple[str, ...]) -> Callable[[Samples], list[float]]:
    """Of the fastest of `others`, in each round that has all of them that were measured."""

    def values(samples: Samples) -> list[float]:
        every = [found for other in others if (found := samples.ratios_by_round(cell, "foldserve", other))]
        rounds = set.intersection(*map(set, every)) if every else set()
        return [min(found[number] for found in every) for number in sorted(rounds)]

    return values


def _more_ms(cell: Cell) -> Callable[[Samples], list[float]]:
    """Milliseconds of the median latency beyond the engine's own."""

    def values(samples: Samples) -> list[float]:
        engine = {s.round: s.p50_ms for s in samples.of(cell, "in-process")}
        ours = samples.of(cell, "foldserve")
        return [s.p50_ms - engine[s.round] for s in ours if s.round in engine]

    return values


def _tail(cell: Cell) -> Callable[[Samples], list[float]]:
    return lambda samples: [s.p99_ms / s.p50_ms for s in samples.of(cell, "foldserve") if s.p50_ms]


def _beside_tensors(payload: str) -> Callable[[Samples], list[float]]:
    return lambda samples: samples.ratios(
        Cell("resnet18", payload, 32), "foldserve", "foldserve", Cell("resnet18", "tensor", 32)
    )


def _decoding(payload: str) -> Callable[[Samples], list[float]]:
    """Cores that 300 images a second take beyond 300 tensors."""

    def values(samples: Samples) -> list[float]:
        tensors = {s.round: s.cpu_ms for s in samples.of(Cell("resnet18", "tensor", 32), "foldserve")}
        images = samples.of(Cell("resnet18", payload, 32), "foldserve")
        return [0.3 * (s.cpu_ms - tensors[s.round]) for s in images if s.round in tensors]

    return values


_R1, _R32 = Cell("resnet18", "tensor", 1), Cell("resnet18", "tensor", 32)
_HAND_WRITTEN = ("batched", "batched-folded")
_D1, _D32 = Cell("digits", "tensor", 1), Cell("digits", "tensor", 32)

TARGETS = (
    Target("rows/s of the in-process best, c32", "resnet18", 0.95, True, _rate(_R32, "in-process")),
    Target("ms beyond the engine's latency, c1", "resnet18", 1.0, False, _more_ms(_R1)),
    Target("jpeg-224 of the tensor rate, c32", "resnet18", 0.9, True, _beside_tensors("jpeg-224")),
    Target("jpeg-500 of the tensor rate, c32", "resnet18", 0.9, True, _beside_tensors("jpeg-500")),
    Target("cores to decode 300 jpeg-224/s", "resnet18", 0.5, False, _decoding("jpeg-224")),
    Target("cores to decode 300 jpeg-500/s", "resnet18", 0.5, False, _decoding("jpeg-500")),
    Target("of bare FastAPI (aim 0.7), c32", "digits", 0.5, True, _rate(_D32, "bare")),
    Target("of LitServe, c32", "digits", 10, True, _rate(_D32, "litserve")),
    Target("of the best hand-written batcher, c32", "digits", 1.3, True, _best_rate(_D32, _HAND_WRITTEN)),
    Target("p99 over p50, c32", "digits", 3, False, _tail(_D32)),
    Target("of the naive handler, c1", "digits", 0.9, True, _rate(_D1, "naive")),
)  # fmt: skip


def targets(samples: Samples) -> Iterator[str]:
    """The lines of what was measured."""
    for target in TARGETS:
        if line := target.line(samples):
            yield f"{line} [{target.network}]"


def _shown(quartiles: Spread, form: str = "{:.4g}") -> str:
    low, middle, high = (form.format(value) for value in quartiles)
    return f"{middle} ({low} .. {high})"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
