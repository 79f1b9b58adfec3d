"""A stored version, loaded so that its norms can be watched while images are shown to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from service.engine import unfolded, watching
from service.engine.stopwatch import Stopwatch
from service.errors import InvalidConfiguration
from service.graph.written_norms import written_norms
from service.network.adopt import norms

if TYPE_CHECKING:
    import torch

    from service.graph.capture import CapturedGraph
    from service.inspection.watched import Watched
    from service.plan.observation import Observation
    from service.store.model_store import StoredModel

ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Observed:
    """The unfolded network, and what of it is watched."""

    captured: CapturedGraph
    observation: Observation
    watched: Watched

    @classmethod
    def of(cls, stored: StoredModel, device: torch.device) -> Self:
        """Raises what loading the version raises, and `InvalidConfiguration` where no norm can be watched."""
        source = unfolded.read(stored, Stopwatch())
        captured = source.reference.captured
        called = norms(source.network)
        called |= written_norms(captured, called)
        observation, watched = watching.observed(stored, captured, called, device, "all")
        if observation is None:
            raise InvalidConfiguration(f"{stored} has no norm whose input could be looked at")
        return cls(captured, observation, watched)

    def seen(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and variance over each row's pixels, `[N, C]`, of `uint8` pixels or network inputs."""
        parts = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            self.observation.begin(rows[first : first + ROWS_AT_ONCE])
            self.observation.run(math.inf)
            parts.append(self.observation.finished())
        mean, var = map(np.concatenate, zip(*parts, strict=True))
        return mean, var
