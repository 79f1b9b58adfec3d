"""EfficientNet, B0 to B7.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019,
https://arxiv.org/abs/1905.11946: B0 is table 1, the others scale its width and depth. Written from
the paper; modules are named as in torchvision's checkpoints, and the norms' eps and momentum are
those they were trained with (B0 to B4 one pair, B5 to B7 another). Stochastic depth, which is the
identity at inference and holds nothing, is left out.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d
from service.network.initial_weights import keep_scale
from service.network.inverted_residual import (
    ConvNorm,
    InvertedResidual,
    Shape,
    SqueezeExcitation,
    rounded_channels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.network.inverted_residual import Norm


class _Stage(NamedTuple):
    """A row of table 1."""

    expansion: int
    kernel: int
    stride: int  # of the first block
    channels: int
    depth: int


_B0 = (
    _Stage(1, 3, 1, 16, 1),
    _Stage(6, 3, 2, 24, 2),
    _Stage(6, 5, 2, 40, 2),
    _Stage(6, 3, 2, 80, 3),
    _Stage(6, 5, 1, 112, 3),
    _Stage(6, 5, 2, 192, 4),
    _Stage(6, 3, 1, 320, 1),
)


class _Scaling(NamedTuple):
    width: float
    depth: float
    dropout: float
    norm: Norm = BatchNorm2d


_tensorflow_norm = partial(BatchNorm2d, eps=0.001, momentum=0.01)


class EfficientNet(nn.Module):
    """Scaled stages of gated inverted residuals: `[N, 3, H, W]` to `num_classes` logits."""

    def __init__(self, scaling: _Scaling, num_classes: int = 1000) -> None:
        super().__init__()
        channels = rounded_channels(32 * scaling.width)
        layers: list[nn.Module] = [ConvNorm(3, channels, 3, 2, norm=scaling.norm, activation=nn.SiLU)]
        for stage in _B0:
            out_channels = rounded_channels(stage.channels * scaling.width)
            depth = math.ceil(stage.depth * scaling.depth)
            layers.append(_stage(stage, channels, out_channels, depth, scaling.norm))
            channels = out_channels
        layers.append(ConvNorm(channels, 4 * channels, norm=scaling.norm, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(scaling.dropout), nn.Linear(4 * channels, num_classes))
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # [N, 4C, H/32, W/32]
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def _stage(stage: _Stage, in_channels: int, out_channels: int, depth: int, norm: Norm) -> nn.Sequential:
    first = _block(stage, in_channels, out_channels, stage.stride, norm)
    rest = (_block(stage, out_channels, out_channels, 1, norm) for _ in range(1, depth))
    return nn.Sequential(first, *rest)


def _block(stage: _Stage, in_channels: int, out_channels: int, stride: int, norm: Norm) -> InvertedResidual:
    expanded = rounded_channels(in_channels * stage.expansion)
    gate = SqueezeExcitation(expanded, in_channels // 4, nn.SiLU, nn.Sigmoid)
    shape = Shape(in_channels, expanded, out_channels, stage.kernel, stride)
    return InvertedResidual(shape, norm, nn.SiLU, gate)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    name: partial(EfficientNet, scaling)
    for name, scaling in {
        "efficientnet_b0": _Scaling(1.0, 1.0, 0.2),
        "efficientnet_b1": _Scaling(1.0, 1.1, 0.2),
        "efficientnet_b2": _Scaling(1.1, 1.2, 0.3),
        "efficientnet_b3": _Scaling(1.2, 1.4, 0.3),
        "efficientnet_b4": _Scaling(1.4, 1.8, 0.4),
        "efficientnet_b5": _Scaling(1.6, 2.2, 0.4, _tensorflow_norm),
        "efficientnet_b6": _Scaling(1.8, 2.6, 0.5, _tensorflow_norm),
        "efficientnet_b7": _Scaling(2.0, 3.1, 0.5, _tensorflow_norm),
    }.items()
}
