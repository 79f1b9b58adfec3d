"""DenseNet: every layer reads what all layers of its block before it have written.

Huang et al., "Densely Connected Convolutional Networks", 2016, https://arxiv.org/abs/1608.06993,
the DenseNet-BC of table 1. Written from the paper; modules are named as in torchvision's checkpoints.
A norm comes before its convolution here, and after a concatenation.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d
from service.network.initial_weights import keep_scale

if TYPE_CHECKING:
    from collections.abc import Callable

_BOTTLENECK = 4  # a layer's 1x1 convolution writes this many times the growth rate


class DenseNet(nn.Module):
    """Four dense blocks: `[N, 3, H, W]`, usually 224x224, to `num_classes` logits."""

    def __init__(self, growth: int, depths: tuple[int, int, int, int], num_classes: int = 1000) -> None:
        super().__init__()
        channels = 2 * growth
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            norm0=BatchNorm2d(channels),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )  # [N, 2k, H/4, W/4], k the growth rate
        for index, depth in enumerate(depths, start=1):
            layers[f"denseblock{index}"] = _Block(channels, growth, depth)
            channels += depth * growth
            if index < len(depths):
                layers[f"transition{index}"] = _transition(channels)  # halves C, H and W
                channels //= 2
        layers["norm5"] = BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(channels, num_classes)
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.features(x))  # [N, C, H/32, W/32]
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, channels: int, growth: int, depth: int) -> None:
        super().__init__()
        for index in range(depth):
            self.add_module(f"denselayer{index + 1}", _Layer(channels + index * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]  # [N, C, H, W], then [N, k, H, W] of each layer
        for layer in self.children():
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)  # [N, C + depth * k, H, W]


class _Layer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        inner = _BOTTLENECK * growth
        self.norm1 = BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm2 = BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.relu(self.norm1(x)))  # [N, 4k, H, W]
        y: Tensor = self.conv2(self.relu(self.norm2(x)))  # [N, k, H, W]
        return y

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The published files are older than the rule that a module's name has no dot: `norm.1.weight`.
        for key in list(state_dict):
            if old := re.fullmatch(re.escape(prefix) + r"(norm|conv)\.([12]\..+)", key):
                state_dict[prefix + old[1] + old[2]] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "densenet121": partial(DenseNet, 32, (6, 12, 24, 16)),
    "densenet161": partial(DenseNet, 48, (6, 12, 36, 24)),
    "densenet169": partial(DenseNet, 32, (6, 12, 32, 32)),
    "densenet201": partial(DenseNet, 32, (6, 12, 48, 32)),
}
