"""The affine domain: `scale * x + shift`, constant per channel, wherever the channels lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """A map of a value: `scale` and `shift` are float64 and broadcast against the value.

    Both have the value's rank; an axis along which they do not change has length 1. The first
    axis, the batch, always has.
    """

    scale: Tensor
    shift: Tensor

    @staticmethod
    def along(axis: int, rank: int, scale: Tensor, shift: Tensor) -> Affine:
        """The map with vectors `[C]` (or `[1]`) along one axis of a value of that rank."""
        shape = [1] * rank
        shape[axis] = -1
        return Affine(scale.double().reshape(shape), shift.double().reshape(shape))

    @staticmethod
    def compact(scale: Tensor, shift: Tensor) -> Affine:
        """The map with whole tensors, every axis along which nothing changes shrunk to length 1."""
        for axis in range(scale.dim()):
            first = scale.narrow(axis, 0, 1), shift.narrow(axis, 0, 1)
            if bool((scale == first[0]).all()) and bool((shift == first[1]).all()):
                scale, shift = first
        return Affine(scale, shift)

    def then(self, after: Affine) -> Affine:
        """This map followed by `after`."""
        return Affine(after.scale * self.scale, after.scale * self.shift + after.shift)

    def without_shift(self) -> Affine:
        """Only the scale."""
        return Affine(self.scale, torch.zeros_like(self.shift))

    def vectors(self, axis: int, length: int) -> tuple[Tensor, Tensor] | None:
        """Scale and shift as vectors `[length]` along `axis`; None where they change along another."""
        axis %= self.scale.dim()
        if self.axes - {axis}:
            return None
        return self.scale.reshape(-1).expand(length), self.shift.reshape(-1).expand(length)

    @property
    def axes(self) -> set[int]:
        """The axes along which scale or shift change."""
        return {axis for t in (self.scale, self.shift) for axis, size in enumerate(t.shape) if size != 1}

    @property
    def has_shift(self) -> bool:
        """Whether 0 is mapped to anything but 0."""
        return bool((self.shift != 0).any())

    @property
    def is_increasing(self) -> bool:
        """Whether no scale is below 0: larger values stay larger, or become equal."""
        return bool((self.scale >= 0).all())
