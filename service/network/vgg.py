"""VGG with BatchNorm after every convolution.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
https://arxiv.org/abs/1409.1556, table 1, configurations A, B, D and E. The paper is older than
BatchNorm; the norms are where torchvision's checkpoints have them, and so are the modules' names.
Written from the paper.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d
from service.network.initial_weights import keep_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHANNELS = (3, 64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions: `[N, 3, H, W]`, usually 224x224, to `num_classes` logits."""

    def __init__(self, depths: tuple[int, int, int, int, int], num_classes: int = 1000) -> None:
        super().__init__()
        channels = zip(pairwise(_CHANNELS), depths, strict=True)
        self.features = nn.Sequential(
            *(layer for (before, after), depth in channels for layer in _stage(before, after, depth))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # the identity at 224x224
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # [N, 512, H/32, W/32]
        x = self.avgpool(x)  # [N, 512, 7, 7]
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def _stage(in_channels: int, channels: int, depth: int) -> Iterator[nn.Module]:
    for index in range(depth):
        yield nn.Conv2d(channels if index else in_channels, channels, 3, padding=1)
        yield BatchNorm2d(channels)
        yield nn.ReLU()
    yield nn.MaxPool2d(2)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "vgg11_bn": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13_bn": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16_bn": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19_bn": partial(VGG, (2, 2, 4, 4, 4)),
}
