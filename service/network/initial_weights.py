"""The initial weights of convolutions that are followed by rectifiers.

He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852: a variance of
2 / fan_in keeps the scale of what passes through a deep network. With torch's own, a sixth of that, the
signal of an untrained one is lost on the way while its norms still have their first statistics.
"""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def keep_scale(network: nn.Module) -> None:
    """Turn the weights that torch has just given every convolution of `network` into He's, in place.

    Torch draws them uniformly with variance 1 / (3 fan_in); nothing is drawn again.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.mul_(math.sqrt(6))
