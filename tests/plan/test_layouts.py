"""No hidden changes of layout: oneDNN's own log and the profiler see none between a plan's calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from service.plan import onednn

ROOT = Path(__file__).parents[2]
BATCHES = (1, 2, 4, 8)

pytestmark = pytest.mark.skipif(not onednn.is_supported(torch.float32), reason="there is no oneDNN")


@dataclass(frozen=True)
class Seen:
    """What one batch did."""

    primitives: list[str]
    """oneDNN's, in order, such as `convolution` and `reorder`."""
    moved: list[str]
    """ATen calls that copied a tensor of rank 4."""


def watched(architecture: str, side: int, threads: str) -> list[Seen]:
    """Plans in a process of its own, with every layer fused: oneDNN logs to the process's output."""
    command = [sys.executable, "-m", "tests.plan.layouts", architecture, str(side), threads]
    done = subprocess.run(
        [*command, *map(str, BATCHES)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = []
    for part in done.stdout.split("batch ")[1:]:
        lines = part.splitlines()
        executed = [line.split(",") for line in lines if line.startswith("onednn_verbose,v1,primitive,exec")]
        (moved,) = (json.loads(line) for line in lines if line.startswith("["))
        seen.append(Seen([fields[5] for fields in executed], moved))
    return seen


@pytest.mark.parametrize(
    ("architecture", "convolutions"),
    [("resnet50", 53), ("mobilenet_v3_small", 52)],
)
def test_only_the_input_is_brought_into_another_layout(architecture: str, convolutions: int) -> None:
    """With weights packed for one row, a dozen of ResNet-50's were repacked at every call of two threads."""
    seen = watched(architecture, 64, "1,2")
    assert len(seen) == 2 * len(BATCHES)
    for batch in seen:
        assert batch.primitives.count("convolution") == convolutions
        assert "reorder" not in batch.primitives
        assert batch.moved == ["aten::copy_"]  # the rows, from planes to channels-last
