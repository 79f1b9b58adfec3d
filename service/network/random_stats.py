"""Random statistics: what an untrained network is given so that folding it means something."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    """Give every norm of `network` sane random statistics, scales and shifts, in place.

    Anything with a stored `running_var` counts as a norm. Means and shifts are normal with
    deviation 0.1; variances and scales are uniform in 0.5 .. 1.5. One seed, one result.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if not isinstance(getattr(module, "running_var", None), Tensor):
            continue
        for name, spread in (("running_mean", _normal), ("running_var", _uniform)):
            getattr(module, name).copy_(spread(getattr(module, name), generator))
        for name, spread in (("weight", _uniform), ("bias", _normal)):
            if isinstance(getattr(module, name, None), Tensor):
                getattr(module, name).copy_(spread(getattr(module, name), generator))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return 0.1 * torch.randn(like.shape, generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return 0.5 + torch.rand(like.shape, generator=generator)
