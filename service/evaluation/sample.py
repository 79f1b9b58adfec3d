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

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ROWS_AT_ONCE = 8


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

    def golden(self, stored: StoredModel, captured: CapturedGraph) -> Golden:
        """What was taken, with the unfolded network's own error on it in every dtype."""
        pixels, answers = np.concatenate(self._pixels), torch.cat(self._answers)
        errors = {
            str(dtype).removeprefix("torch."): _own_error(stored, captured, dtype, pixels, answers)
            for dtype in _DTYPES
        }
        return Golden(tuple(self._names), pixels, answers.numpy(), errors)


@torch.inference_mode()
def _own_error(
    stored: StoredModel, captured: CapturedGraph, dtype: torch.dtype, pixels: np.ndarray, exact: Tensor
) -> float:
    answer = contenders.unfolded(stored, captured, dtype).answer
    parts = torch.split(torch.from_numpy(pixels), _ROWS_AT_ONCE)
    return relative_error(exact, torch.cat([answer(part).double() for part in parts]))
