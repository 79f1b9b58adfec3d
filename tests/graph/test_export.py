"""Exports do not pile up in memory, however often networks are loaded."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from service.errors import ModelRefused
from service.graph.capture import capture

from .networks import Net, normal, trained

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    """pytest keeps what is logged, and torch's own lines keep the export that they are about."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def alive() -> int:
    """The exports that lie in memory, by the symbols of their sizes."""
    gc.collect()
    return sum(type(thing) is ShapeEnv for thing in gc.get_objects())


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), id="plain"),
        pytest.param(Net(lambda _, x: torch.relu_(x.transpose(1, 2)).flatten(1)), id="decomposed"),
        pytest.param(Net(lambda _, x: (x, x)), id="refused"),
    ],
)
def test_all_but_the_last_export_are_freed_with_their_graphs(network: nn.Module) -> None:
    before = alive()
    for _ in range(4):
        with suppress(ModelRefused):
            capture(trained(network), normal(2, 3, 6, 6))
    assert alive() <= before + 1
