"""Plans of architectures with random statistics, for the scripts beside this one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.graph import fold
from service.network import catalog
from service.network.random_stats import randomise
from service.plan.plan import Plan, lower
from service.plan.preprocessing import Preprocessing


def random_plan(model: str, max_batch: int) -> tuple[Plan, list[int]]:
    """A float32 plan for the CPU and torch's number of threads, and the shape of its rows."""
    network = catalog.build(model, {})
    randomise(network, 0)
    row = list(catalog.input_shape(network))
    plan = lower(
        fold(network, torch.zeros(2, *row)).module,
        Preprocessing([0.0] * row[0], [1.0] * row[0]),
        precision=torch.float32,
        device=torch.device("cpu"),
        max_batch=max_batch,
    )
    return plan, row
