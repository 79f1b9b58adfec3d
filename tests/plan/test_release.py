"""A plan that is released gives its memory back at once, whoever holds it, and without a collection."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from torch import nn

from service.engine import allocator

from .lowered import inputs, lowered

WEIGHTS = 2048 * 4096 * 4  # bytes


def resident_bytes() -> int:
    """Without what is free, and only kept for later."""
    with allocator.giving_back():
        pass
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_released_plan_gives_its_weights_back_though_nothing_is_collected() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 4096), nn.ReLU())
    plan = lowered(net, inputs(4, 18, 18))
    plan(inputs(2, 4, 18, 18))
    del net
    gc.collect()
    gc.freeze()  # as the engine does with what it loads at the start
    gc.disable()
    try:
        before = resident_bytes()
        plan.release()
        assert before - resident_bytes() > 0.9 * WEIGHTS
    finally:
        gc.enable()
        gc.unfreeze()
    with pytest.raises(AttributeError):
        plan(inputs(1, 4, 18, 18))
