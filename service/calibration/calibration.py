"""Calibration: what the norms of a version see of accepted images, recorded as a baseline."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.calibration import gallery
from service.calibration.observed import ROWS_AT_ONCE, Observed
from service.errors import InvalidConfiguration
from service.evaluation.batches import Batches
from service.graph.precision import compute
from service.inspection.baseline import FEWEST_ROWS, Baseline
from service.inspection.rows import Rows
from service.plan.preprocessing import Preprocessing
from service.store import baseline as baselines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.evaluation.batches import Unreadable
    from service.inspection.watched import Watched
    from service.settings import Settings
    from service.store.model_store import StoredModel


@dataclass(frozen=True)
class Calibrated:
    """A recorded baseline."""

    file: Path
    baseline: Baseline
    norms: int
    copies: int
    """Images whose pixels had been there before; they do not count."""
    unreadable: tuple[Unreadable, ...]


def calibrate(
    stored: StoredModel,
    folder: Path,
    device: torch.device,
    settings: Settings,
    apart: Path | None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Calibrated:
    """Let the unfolded network see the images of `folder`, and store what that came to, as numbers only.

    `apart`: a folder for baselines, in place of the version's own. Raises what loading the version raises,
    `InvalidConfiguration` where too few images can be read, and `StoreError` where nothing can be written.
    """
    found = gallery.of(folder)
    observed = Observed.of(stored, device)
    watched = observed.watched
    batches = Batches(stored.manifest.input, ROWS_AT_ONCE, settings.max_body_bytes, settings.max_pixels)
    seen = _Seen(stored, observed)
    for batch in batches.of(found):
        seen.take(batch.pixels)
        progress(len(seen) + seen.copies + len(batches.unreadable), len(found))
    baseline = _baseline(seen, watched, folder)
    file = baselines.write(stored, apart, baseline.arrays())
    return Calibrated(file, baseline, len(watched.norms), seen.copies, tuple(batches.unreadable))


def _baseline(seen: _Seen, watched: Watched, folder: Path) -> Baseline:
    if len(seen) < FEWEST_ROWS:
        raise InvalidConfiguration(
            f"a baseline takes {FEWEST_ROWS} different images, better some hundreds; "
            f"{folder.name!r} holds {len(seen)} that can be read"
        )
    return Baseline.of(seen.rows(), watched, seen.classes)


class _Seen:
    """What the norms saw of the images so far, and what the network answered."""

    def __init__(self, stored: StoredModel, observed: Observed) -> None:
        self._observed = observed
        self._preprocessing = Preprocessing(stored.manifest.input.mean, stored.manifest.input.std)
        # The mutable state: a part of each batch, and the digests of rows.
        self.copies = 0
        self.classes = 1
        self._known: set[bytes] = set()
        self._parts: list[Rows] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def take(self, pixels: np.ndarray) -> None:
        """See those of a batch, uint8 `[N, C, H, W]`, that were not seen before."""
        fresh = pixels[[self._is_new(row) for row in pixels]]
        self.copies += len(pixels) - len(fresh)
        if not len(fresh):
            return
        self._parts.append(Rows(*self._observed.seen(fresh), self._answers(fresh)))

    def rows(self) -> Rows:
        """All of them."""
        columns = ((part.mean, part.var, part.classes) for part in self._parts)
        return Rows(*map(np.concatenate, zip(*columns, strict=True)))

    def _is_new(self, row: np.ndarray) -> bool:
        digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        known = digest in self._known
        self._known.add(digest)
        return not known

    @torch.inference_mode()
    def _answers(self, pixels: np.ndarray) -> np.ndarray:
        inputs = self._preprocessing.normalised(torch.from_numpy(pixels))
        answers = compute(self._observed.captured.module, inputs, torch.float32)
        if answers.dim() != 2:
            return np.zeros(len(pixels), int)
        self.classes = answers.shape[1]
        return answers.argmax(1).numpy()
