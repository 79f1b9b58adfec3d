"""A network gets as many threads as one row of it keeps busy, at least one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from service.graph.capture import capture
from service.plan.threads import worthwhile


def graph(channels: int, side: int) -> torch.fx.Graph:
    """A 3x3 convolution: channels * channels * 9 * side * side multiply-adds a row."""
    return capture(
        nn.Conv2d(channels, channels, 3, padding=1), torch.zeros(2, channels, side, side)
    ).module.graph


@pytest.mark.parametrize(
    ("channels", "side", "at_most", "expected"),
    [
        (8, 8, 16, 1),  # 0.04 M
        (64, 16, 16, 1),  # 9.4 M
        (64, 24, 16, 2),  # 21.2 M
        (64, 56, 16, 11),  # 115.6 M
        (64, 56, 4, 4),
        (64, 56, 1, 1),
    ],
)
def test_ten_million_multiply_adds_of_a_row_are_worth_a_thread(
    channels: int, side: int, at_most: int, expected: int
) -> None:
    assert worthwhile(graph(channels, side), at_most) == expected
