"""The two operators that only CUDA has, from their documented meaning: on the CPU, and for shapes alone.

cuDNN checks neither that `z` has the result's shape and dtype nor the numbers of the geometry. These do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def convolution_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`relu(convolution(x) + bias)`."""
    return _convolution(x, weight, bias, stride, padding, dilation, groups).relu()


def convolution_add_relu(
    x: Tensor,
    weight: Tensor,
    z: Tensor,
    alpha: float | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`relu(convolution(x) + bias + alpha * z)`."""
    value = _convolution(x, weight, bias, stride, padding, dilation, groups)
    assert (z.shape, z.dtype, z.device) == (value.shape, value.dtype, value.device)
    return (value + (1 if alpha is None else alpha) * z).relu()


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    axes = x.dim() - 2
    assert axes in (2, 3)
    assert [len(numbers) for numbers in (stride, padding, dilation)] == [axes] * 3
    assert weight.dtype == x.dtype
    assert bias is None or (bias.dtype, bias.dim()) == (x.dtype, 1)
    answer: Tensor = torch.ops.aten.convolution.default(
        x, weight, bias, stride, padding, dilation, False, [0] * axes, groups
    )
    return answer


def registered() -> torch.library.Library:
    """The operators where this torch has none; they are there as long as what this returns is."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for key in ("CPU", "Meta"):
        library.impl("cudnn_convolution_relu", convolution_relu, key)  # type: ignore[no-untyped-call]
        library.impl("cudnn_convolution_add_relu", convolution_add_relu, key)  # type: ignore[no-untyped-call]
    return library
