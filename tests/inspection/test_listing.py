"""Norms are listed as wide as the terminal is, and without colours where nobody would see them."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from service.inspection.flags import flags
from service.inspection.layer_stats import LayerStats, summary, with_derived
from service.inspection.listing import print_layer, print_layers

RANDOM = np.random.default_rng(0)
VECTORS = {
    "running_mean": RANDOM.normal(size=64),
    "running_var": np.r_[RANDOM.uniform(0.5, 2, 63), -1.0],
    "weight": RANDOM.uniform(0.5, 1.5, 64),
    "bias": RANDOM.normal(size=64),
}


def layer(name: str, *, is_odd: bool = False) -> LayerStats:
    shown = with_derived(VECTORS, 1e-5)
    return LayerStats(
        name=name,
        num_features=64,
        eps=1e-5,
        momentum=None,
        affine=True,
        track_running_stats=True,
        num_batches_tracked=1234,
        outcome="into_producer",
        partner="stage[1].conv",
        reason="scaled the weights of stage[1].conv, its input",
        activation="relu",
        folding_error=1.25e-7,
        folding_error_at="bn2",
        flags=flags(VECTORS, 1e-5) if is_odd else [],
        **{kind: summary(vector) for kind, vector in shown.items()},
    )


def listed(width: int, *, is_terminal: bool = False, encoding: str = "utf-8", one: bool = False) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(
        file=file,
        width=width,
        force_terminal=is_terminal,
        highlight=False,
        _environ={"TERM": "xterm-256color"},
    )
    layers = [layer("stage[1].bn", is_odd=True), layer("bn2")]
    if one:
        print_layer(console, layers[0], VECTORS, 5)
    else:
        print_layers(console, layers, {each.name: VECTORS for each in layers})
    file.flush()
    buffer = file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(encoding)


@pytest.mark.parametrize(("width", "vectors"), [(200, 4), (120, 4), (90, 2), (70, 0)])
def test_the_table_is_no_wider_than_the_terminal(width: int, vectors: int) -> None:
    table = [line for line in listed(width).splitlines() if "negative variance" not in line]
    assert all(len(line) <= width for line in table)
    head = table[0].split()
    assert len({"mean", "variance", "weight", "bias"} & set(head)) == vectors
    assert {"norm", "channels", "outcome", "flags"} <= set(head)


def test_a_norm_s_line_has_its_outcome_error_and_flags() -> None:
    _, first, second, *_ = listed(200).splitlines()
    assert first.startswith("stage[1].bn")
    assert "into_producer stage[1].conv" in first
    assert first.rstrip().endswith("1.2e-07  non_finite")
    assert second.rstrip().endswith("1.2e-07")


def test_the_flags_are_said_in_words_behind_the_table() -> None:
    last = listed(200).splitlines()[-1]
    assert (
        last == "stage[1].bn: error non_finite: NaN, infinity or a negative variance in 1 channel (limit 0)"
    )


@pytest.mark.parametrize("one", [False, True])
def test_only_a_terminal_gets_colours(one: bool) -> None:
    assert "\x1b" in listed(160, is_terminal=True, one=one)
    assert "\x1b" not in listed(160, one=one)


@pytest.mark.parametrize("one", [False, True])
def test_a_terminal_without_unicode_gets_bars_of_ascii(one: bool) -> None:
    assert re.search("[▁▂▃▄▅▆▇█]", listed(160, one=one))
    assert listed(160, encoding="ascii", one=one).isascii()  # where it could not be encoded, it would raise


def test_one_norm_is_shown_with_everything() -> None:
    shown = listed(160, one=True)
    assert "64 channels, eps 1e-05, momentum cumulative, 1,234 batches tracked" in shown
    assert "into_producer stage[1].conv: scaled the weights of stage[1].conv, its input" in shown
    assert "folding error 1.2e-07 at bn2, behind it" in shown
    for kind in ("running_mean", "running_var", "weight", "bias", "scale", "shift"):
        assert re.search(rf"^{kind} ", shown, re.MULTILINE)
    assert "error non_finite" in shown
    assert f"channel 5: y = {VECTORS['weight'][5]:.6g} · (x" in shown
