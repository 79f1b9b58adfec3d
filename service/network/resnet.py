"""Residual networks: ResNet, ResNeXt and Wide ResNet.

He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385;
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2016,
https://arxiv.org/abs/1611.05431; Zagoruyko and Komodakis, "Wide Residual Networks", 2016,
https://arxiv.org/abs/1605.07146. Written from the papers; modules are named as in torchvision's
checkpoints. As there, a bottleneck's stride is on its 3x3 convolution, where the first paper has it
on the 1x1 before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d
from service.network.initial_weights import keep_scale

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class _Design:
    """What tells one network of the family from another."""

    block: type[_Basic | _Bottleneck]
    depths: tuple[int, int, int, int]  # blocks of each stage
    groups: int = 1  # of a bottleneck's 3x3 convolution, ResNeXt's cardinality
    width: int = 64  # channels of each of these groups in the first stage


class ResNet(nn.Module):
    """A residual network: `[N, 3, H, W]`, usually 224x224, to `num_classes` logits."""

    def __init__(self, design: _Design, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = design.block.expansion
        self.layer1 = _stage(design, 0, 64)
        self.layer2 = _stage(design, 1, 64 * expansion)
        self.layer3 = _stage(design, 2, 128 * expansion)
        self.layer4 = _stage(design, 3, 256 * expansion)
        self.fc = nn.Linear(512 * expansion, num_classes)
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # [N, 64, H/2, W/2]
        x = self.layer1(self.maxpool(x))  # [N, 64e, H/4, W/4], e the block's expansion, 1 or 4
        x = self.layer2(x)  # [N, 128e, H/8, W/8]
        x = self.layer3(x)  # [N, 256e, H/16, W/16]
        x = self.layer4(x)  # [N, 512e, H/32, W/32]
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, _: _Design) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # [N, C, H/stride, W/stride]
        y = self.bn2(self.conv2(y))
        z: Tensor = self.relu(y + self.downsample(x))
        return z


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, design: _Design) -> None:
        super().__init__()
        inner = channels * design.width // 64 * design.groups
        outer = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=design.groups, bias=False)
        self.bn2 = BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = BatchNorm2d(outer)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # [N, inner, H, W]
        y = self.relu(self.bn2(self.conv2(y)))  # [N, inner, H/stride, W/stride]
        y = self.bn3(self.conv3(y))  # [N, outer, H/stride, W/stride]
        z: Tensor = self.relu(y + self.downsample(x))
        return z


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels)
    )


def _stage(design: _Design, index: int, in_channels: int) -> nn.Sequential:
    channels = 64 << index
    stride = 1 if index == 0 else 2
    out_channels = channels * design.block.expansion
    first = design.block(in_channels, channels, stride, design)
    rest = (design.block(out_channels, channels, 1, design) for _ in range(1, design.depths[index]))
    return nn.Sequential(first, *rest)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    name: partial(ResNet, design)
    for name, design in {
        "resnet18": _Design(_Basic, (2, 2, 2, 2)),
        "resnet34": _Design(_Basic, (3, 4, 6, 3)),
        "resnet50": _Design(_Bottleneck, (3, 4, 6, 3)),
        "resnet101": _Design(_Bottleneck, (3, 4, 23, 3)),
        "resnet152": _Design(_Bottleneck, (3, 8, 36, 3)),
        "resnext50_32x4d": _Design(_Bottleneck, (3, 4, 6, 3), groups=32, width=4),
        "resnext101_32x8d": _Design(_Bottleneck, (3, 4, 23, 3), groups=32, width=8),
        "resnext101_64x4d": _Design(_Bottleneck, (3, 4, 23, 3), groups=64, width=4),
        "wide_resnet50_2": _Design(_Bottleneck, (3, 4, 6, 3), width=128),
        "wide_resnet101_2": _Design(_Bottleneck, (3, 4, 23, 3), width=128),
    }.items()
}
