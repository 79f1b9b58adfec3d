"""The sample: the images, up to 64, that become golden inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from service.evaluation import contenders
from service.graph.parity import relative_error
from service.store.golden import Golden

if TYPE_CHECKING:
    from torch import Tensor

    from service.evaluation.batches import Batch
    from service.graph.capture import CapturedGraph
    from service.store.model_store import StoredModel

_ROWS_BY_DTYPE = {torch.float32: 64, torch.bfloat16: 4, torch.float16: 4}
"""A processor without 16-bit arithmetic takes seconds for a row of an unfolded ResNet-50."""
_ROWS_AT_ONCE = 4


class Sample:
    """Takes the first images that come by; pictures come by spread over their classes."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        # The mutable state: what was taken.
        self._names: list[str] = []
        self._pixels: list[np.ndarray] = []
        self._answers: list[Tensor] = []

    def take(self, batch: Batch, exact: Tensor) -> None:
        """Take what is wanted of a batch, and its float64 logits `[N, classes]`."""
        wanted = self._at_most - len(self._names)
        if wanted > 0:
            self._names += [picture.name for picture in batch.pictures[:wanted]]
            self._pixels.append(batch.pixels[:wanted].copy())  # a part would keep the whole batch
            self._answers.append(exact[:wanted].clone())

    def golden(self, stored: StoredModel, captured: CapturedGraph) -> Golden | None:
        """What was taken, with the unfolded network's own error in every dtype; None where nothing was.

        The errors in 16 bits are those of the first four images.
        """
        if not self._names:
            return None
        pixels, answers = np.concatenate(self._pixels), torch.cat(self._answers)
        errors = {
            str(dtype).removeprefix("torch."): _own_error(stored, captured, dtype, pixels[:rows], answers)
            for dtype, rows in _ROWS_BY_DTYPE.items()
        }
        return Golden(tuple(self._names), pixels, answers.numpy(), errors)


@torch.inference_mode()
def _own_error(
    stored: StoredModel, captured: CapturedGraph, dtype: torch.dtype, pixels: np.ndarray, exact: Tensor
) -> float:
    answer = contenders.unfolded(stored, captured, dtype).answer
    parts = torch.split(torch.from_numpy(pixels), _ROWS_AT_ONCE)
    answers = torch.cat([answer(part).double() for part in parts])
    return relative_error(exact[: len(answers)], answers, float(exact.abs().max()))
