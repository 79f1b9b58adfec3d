"""Listings: the norms of a network, and one of them, for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from service.console import plain
from service.inspection.equation import equation
from service.inspection.layer_stats import DERIVED, STORED, with_derived
from service.inspection.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from rich.console import Console

    from service.inspection.flag import Flag
    from service.inspection.layer_stats import LayerStats, Summary

    Vectors = Mapping[str, Mapping[str, np.ndarray]]

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_ASCII_SIGNS = str.maketrans({"−": "-", "·": "*", "√": "sqrt"})
_SHORT = {"running_mean": "mean", "running_var": "variance"}
# From so many columns on a terminal shows: the vectors, in lines of so many characters.
_LAYOUTS = ((150, STORED, 16), (110, STORED, 8), (80, STORED[:2], 8), (0, (), 0))


def print_layers(console: Console, layers: Sequence[LayerStats], vectors: Vectors) -> None:
    """One line per norm, as wide as the console has room for, and behind them the flags in words."""
    _, shown, bins = next(layout for layout in _LAYOUTS if console.width >= layout[0])
    is_wide = console.width >= 110
    table = Table(box=None, pad_edge=False)
    table.add_column("norm", no_wrap=True)
    for name in ("channels", *(("eps",) if is_wide else ()), *(_SHORT.get(kind, kind) for kind in shown)):
        table.add_column(name, no_wrap=True)
    for name in ("outcome", *(("error",) if is_wide else ()), "flags"):
        table.add_column(name)
    for layer in layers:
        stored = vectors.get(layer.name, {})
        lines = [sparkline(stored.get(kind), bins, console.encoding) for kind in shown]
        eps, error = ([f"{layer.eps:g}"], [_error(layer)]) if is_wide else ([], [])
        marks = " ".join(f"[{_COLOURS[flag.level]}]{flag.flag}[/]" for flag in layer.flags)
        table.add_row(
            plain(layer.name), str(layer.num_features), *eps, *lines, plain(outcome(layer)), *error, marks
        )
    console.print(table)
    for layer in layers:
        for line in _flags(layer.flags):
            console.print(f"{plain(layer.name)}: {line}", soft_wrap=True)


def print_layer(console: Console, layer: LayerStats, stored: Mapping[str, np.ndarray], channel: int) -> None:
    """All that is known of a norm, with the equation of a channel."""
    for line in _facts(layer):
        console.print(line, soft_wrap=True)
    vectors = with_derived(stored, layer.eps)
    table = Table("vector", "min", "max", "mean", "std", "values", box=None, pad_edge=False)
    for kind in (*STORED, *DERIVED):
        line = sparkline(vectors.get(kind), 32 if console.width >= 90 else 16, console.encoding)
        table.add_row(kind, *_numbers(getattr(layer, kind)), line)
    console.print(table)
    for line in _flags(layer.flags):
        console.print(line, soft_wrap=True)
    for line in _equations(vectors, layer.eps, channel, console.encoding):
        console.print(line, soft_wrap=True, markup=False)


def outcome(layer: LayerStats) -> str:
    """What became of a norm, and its partner."""
    return f"{layer.outcome or '-'} {layer.partner or ''}".strip()


def momentum(layer: LayerStats) -> str:
    """Its momentum, where that is known."""
    if layer.momentum is not None:
        return f"{layer.momentum:g}"
    return "-" if layer.num_batches_tracked is None else "cumulative"  # which counts its batches


def _equations(vectors: Mapping[str, np.ndarray], eps: float, channel: int, encoding: str) -> Iterator[str]:
    numbers = equation(vectors, eps, channel)
    if numbers is None:
        return
    whose = f"channel {channel}"
    for label, written in ((whose, numbers.normalised), ("folded", numbers.folded)):
        signs: dict[int, str] = {} if encoding.startswith("utf") else _ASCII_SIGNS
        yield f"{label:>{len(whose)}}: {written.translate(signs)}"


def _facts(layer: LayerStats) -> Iterator[str]:
    tracked = "-" if layer.num_batches_tracked is None else f"{layer.num_batches_tracked:,}"
    yield (
        f"[bold]{plain(layer.name)}[/]: {layer.num_features} channels, eps {layer.eps:g}, "
        f"momentum {momentum(layer)}, {tracked} batches tracked"
    )
    yield f"{plain(outcome(layer))}: {plain(layer.reason)}"
    if layer.folding_error is not None:
        where = (
            "its output" if layer.folding_error_at == layer.name else f"{layer.folding_error_at}, behind it"
        )
        yield f"folding error {_error(layer)} at {plain(where)}"
    if layer.activation:
        yield f"directly behind it: {layer.activation}"


def _flags(flags: Sequence[Flag]) -> Iterator[str]:
    for flag in flags:
        mark = f"[{_COLOURS[flag.level]}]{flag.level} {flag.flag}[/]"
        yield f"{mark}: {plain(flag.message)} (limit {flag.limit:g})"


def _error(layer: LayerStats) -> str:
    return "-" if layer.folding_error is None else f"{layer.folding_error:.1e}"


def _numbers(summary: Summary | None) -> list[str]:
    names = ("min", "max", "mean", "std")
    return ["-" if summary is None else f"{getattr(summary, name):.4g}" for name in names]
