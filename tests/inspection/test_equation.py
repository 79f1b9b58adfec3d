"""The equation of a channel computes, with its own digits, what the norm computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from service.inspection.equation import equation
from service.inspection.layer_stats import with_derived

EPS = 1e-3


def vectors(**left_out: bool) -> dict[str, np.ndarray]:
    stored = {
        "running_mean": np.array([0.25, -1.5]),
        "running_var": np.array([4.0, 0.5]),
        "weight": np.array([0.5, -2.0]),
        "bias": np.array([-0.75, 0.125]),
    }
    return with_derived({name: v for name, v in stored.items() if name not in left_out}, EPS)


def computed(written: str, x: float) -> float:
    """The right side of an equation, as Python computes it."""
    right = written.removeprefix("y = ").replace("−", "-").replace("·", "*").replace("√", "math.sqrt")
    return float(eval(right, {"math": math, "x": x}))


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("x", [-3.0, 0.0, 1.75])
def test_both_equations_give_what_torch_gives(channel: int, x: float) -> None:
    norm = nn.BatchNorm1d(2, eps=EPS).double().eval()
    with torch.no_grad():
        for name, vector in list(vectors().items())[:4]:
            getattr(norm, name).copy_(torch.from_numpy(vector))
        expected = float(norm(torch.full((1, 2), x, dtype=torch.float64))[0, channel])
    shown = equation(vectors(), EPS, channel)
    assert shown is not None
    assert computed(shown.normalised, x) == pytest.approx(expected, rel=1e-5)
    assert computed(shown.folded, x) == pytest.approx(expected, rel=1e-4)


def test_it_reads_as_people_write_it() -> None:
    shown = equation(vectors(), EPS, 1)
    assert shown is not None
    assert shown.normalised == "y = -2 · (x + 1.5) / √(0.5 + 0.001) + 0.125"
    assert shown.folded == "y = -2.8256 · x − 4.1134"
    assert shown.values["running_mean"] == -1.5


def test_what_a_norm_has_not_got_is_left_out() -> None:
    shown = equation(vectors(weight=True, bias=True), EPS, 0)
    assert shown is not None
    assert shown.normalised == "y = (x − 0.25) / √(4 + 0.001)"
    assert set(shown.values) == {"running_mean", "running_var", "scale", "shift"}


def test_without_running_statistics_there_is_no_equation() -> None:
    assert equation({"weight": np.ones(3)}, EPS, 0) is None
