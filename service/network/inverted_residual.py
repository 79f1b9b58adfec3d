"""The inverted residual block of mobile networks, which MobileNetV3 and EfficientNet are made of.

A 1x1 convolution expands the channels, a depthwise one filters each of them, a gate weighs them, and
a 1x1 convolution projects them: Sandler et al., "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", 2018, https://arxiv.org/abs/1801.04381; the gate is Hu et al., "Squeeze-and-Excitation
Networks", 2017, https://arxiv.org/abs/1709.01507. Written from the papers; modules are named as in
torchvision's checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Callable

    Norm = Callable[[int], BatchNorm2d]
    Activation = Callable[[], nn.Module]


def rounded_channels(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, at least 8 and at least nine tenths of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class ConvNorm(nn.Sequential):
    """Convolution, norm and, where there is one, activation: `[N, C, H, W]` to `[N, C', H/s, W/s]`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm: Norm = BatchNorm2d,
        activation: Activation | None = None,
    ) -> None:
        convolution = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        super().__init__(convolution, norm(out_channels), *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """A gate 0..1 for each channel of `[N, C, H, W]`, computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation()
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3), keepdim=True)  # [N, C, 1, 1]
        s = self.activation(self.fc1(s))  # [N, squeezed, 1, 1]
        s = self.gate(self.fc2(s))  # [N, C, 1, 1]
        y: Tensor = x * s
        return y


@dataclass(frozen=True)
class Shape:
    """The numbers of one block, as a row of a paper's table."""

    in_channels: int
    expanded: int
    out_channels: int
    kernel: int
    stride: int


class InvertedResidual(nn.Module):
    """Expand, filter, weigh, project; plus the input where input and output have one shape.

    Args:
        shape: of the block; it does not expand where `expanded` is `in_channels`.
        norm: makes a norm of so many channels.
        activation: after the expansion and after the depthwise convolution.
        gate: weighs `expanded` channels; None leaves them as they are.
    """

    def __init__(
        self, shape: Shape, norm: Norm, activation: Activation, gate: SqueezeExcitation | None
    ) -> None:
        super().__init__()
        inner = shape.expanded
        layers: list[nn.Module] = []
        if inner != shape.in_channels:
            layers.append(ConvNorm(shape.in_channels, inner, norm=norm, activation=activation))
        layers.append(ConvNorm(inner, inner, shape.kernel, shape.stride, inner, norm, activation))
        if gate is not None:
            layers.append(gate)
        layers.append(ConvNorm(inner, shape.out_channels, norm=norm))
        self.block = nn.Sequential(*layers)
        self.shortcut = shape.stride == 1 and shape.in_channels == shape.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)  # [N, C', H/stride, W/stride]
        return x + y if self.shortcut else y
