"""MobileNetV2 and MobileNetV3.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
https://arxiv.org/abs/1801.04381, table 2; Howard et al., "Searching for MobileNetV3", 2019,
https://arxiv.org/abs/1905.02244, tables 1 and 2. Written from the papers; modules are named as in
torchvision's checkpoints, and the norms' eps and momentum are those they were trained with.
"""

from __future__ import annotations

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

_V2_STAGES = (  # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """Inverted residuals: `[N, 3, H, W]`, usually 224x224, to `num_classes` logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, stride=2, activation=nn.ReLU6)]
        channels = 32
        for expansion, out_channels, depth, first_stride in _V2_STAGES:
            for index in range(depth):
                stride = 1 if index else first_stride
                layers.append(_V2Block(Shape(channels, channels * expansion, out_channels, 3, stride)))
                channels = out_channels
        layers.append(ConvNorm(channels, 1280, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # [N, 1280, H/32, W/32]
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class _V2Block(nn.Module):
    """`InvertedResidual` without a gate, under the names that MobileNetV2's checkpoints have."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.expanded
        expand = [ConvNorm(shape.in_channels, inner, activation=nn.ReLU6)]
        self.conv = nn.Sequential(
            *(expand if inner != shape.in_channels else []),
            ConvNorm(inner, inner, shape.kernel, shape.stride, inner, activation=nn.ReLU6),
            nn.Conv2d(inner, shape.out_channels, 1, bias=False),
            BatchNorm2d(shape.out_channels),
        )
        self.shortcut = shape.stride == 1 and shape.in_channels == shape.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)  # [N, C', H/stride, W/stride]
        return x + y if self.shortcut else y


class _Row(NamedTuple):
    """A row of V3's tables; the paper writes RE and HS for the activations."""

    kernel: int
    expanded: int
    out_channels: int
    gated: bool
    activation: type[nn.Module]
    stride: int


_RE, _HS = nn.ReLU, nn.Hardswish
_LARGE = (
    _Row(3, 16, 16, False, _RE, 1),
    _Row(3, 64, 24, False, _RE, 2),
    _Row(3, 72, 24, False, _RE, 1),
    _Row(5, 72, 40, True, _RE, 2),
    _Row(5, 120, 40, True, _RE, 1),
    _Row(5, 120, 40, True, _RE, 1),
    _Row(3, 240, 80, False, _HS, 2),
    _Row(3, 200, 80, False, _HS, 1),
    _Row(3, 184, 80, False, _HS, 1),
    _Row(3, 184, 80, False, _HS, 1),
    _Row(3, 480, 112, True, _HS, 1),
    _Row(3, 672, 112, True, _HS, 1),
    _Row(5, 672, 160, True, _HS, 2),
    _Row(5, 960, 160, True, _HS, 1),
    _Row(5, 960, 160, True, _HS, 1),
)
_SMALL = (
    _Row(3, 16, 16, True, _RE, 2),
    _Row(3, 72, 24, False, _RE, 2),
    _Row(3, 88, 24, False, _RE, 1),
    _Row(5, 96, 40, True, _HS, 2),
    _Row(5, 240, 40, True, _HS, 1),
    _Row(5, 240, 40, True, _HS, 1),
    _Row(5, 120, 48, True, _HS, 1),
    _Row(5, 144, 48, True, _HS, 1),
    _Row(5, 288, 96, True, _HS, 2),
    _Row(5, 576, 96, True, _HS, 1),
    _Row(5, 576, 96, True, _HS, 1),
)
_v3_norm = partial(BatchNorm2d, eps=0.001, momentum=0.01)


class MobileNetV3(nn.Module):
    """Gated inverted residuals: `[N, 3, H, W]`, usually 224x224, to `num_classes` logits."""

    def __init__(self, rows: tuple[_Row, ...], hidden: int, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 16, 3, stride=2, norm=_v3_norm, activation=nn.Hardswish)]
        channels = 16
        for row in rows:
            layers.append(_v3_block(channels, row))
            channels = row.out_channels
        layers.append(ConvNorm(channels, 6 * channels, norm=_v3_norm, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, num_classes)
        )
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # [N, 6C, H/32, W/32]
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def _v3_block(in_channels: int, row: _Row) -> InvertedResidual:
    squeezed = rounded_channels(row.expanded // 4)
    gate = SqueezeExcitation(row.expanded, squeezed, nn.ReLU, nn.Hardsigmoid) if row.gated else None
    shape = Shape(in_channels, row.expanded, row.out_channels, row.kernel, row.stride)
    return InvertedResidual(shape, _v3_norm, row.activation, gate)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": partial(MobileNetV3, _SMALL, 1024),
    "mobilenet_v3_large": partial(MobileNetV3, _LARGE, 1280),
}
