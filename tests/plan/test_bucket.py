"""How many rows at once: as many as fit the fast memory, up to what the manifest says."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from service.graph.capture import capture
from service.plan import bucket

CPU = torch.device("cpu")


def graph(channels: int) -> fx.Graph:
    """A network whose largest result has `channels` x 64 x 64 elements a row."""
    net = nn.Sequential(nn.Conv2d(1, channels, 1), nn.Conv2d(channels, 1, 1))
    return capture(net, torch.zeros(2, 1, 64, 64)).module.graph


@pytest.mark.parametrize(
    ("channels", "at_most", "rows"),
    [(8, 64, 64), (64, 64, 32), (65, 64, 16), (128, 64, 16), (128, 7, 7), (2048, 64, 1), (4096, 64, 1)],
)
def test_results_of_a_call_are_held_to_32_mib(channels: int, at_most: int, rows: int) -> None:
    assert bucket.largest(graph(channels), at_most, precision=torch.float32, device=CPU) == rows


def test_of_half_the_size_twice_as_many_fit() -> None:
    assert bucket.largest(graph(64), 64, precision=torch.bfloat16, device=CPU) == 64


def test_weights_do_not_count() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 1 << 18))  # 64 MiB of weights, 1 MiB a row
    captured = capture(module, torch.zeros(2, 1, 8, 8)).module.graph
    assert bucket.largest(captured, 64, precision=torch.float32, device=CPU) == 32


def test_another_device_computes_as_many_as_it_is_told_to() -> None:
    there = torch.device("meta")
    assert bucket.largest(graph(4096), 64, precision=torch.float32, device=there) == 64
