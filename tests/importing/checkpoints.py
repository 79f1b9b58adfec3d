"""Checkpoints as training leaves them, of a network small enough for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from service.network import catalog
from service.network.random_stats import randomise

if TYPE_CHECKING:
    from torch import Tensor, nn

ARCHITECTURE = "digits"
PIXELS = {"mean": [0.3], "std": [0.4]}


def trained(architecture: str = ARCHITECTURE, *, seed: int = 0, **options: Any) -> nn.Module:
    """A network with random weights and statistics, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = catalog.build(architecture, options)
    randomise(network, seed)
    return network


def weights_of(*, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    return dict(trained(ARCHITECTURE, seed=seed, **options).state_dict())


def behind(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names that begin with `prefix`, as wrappers leave them."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
