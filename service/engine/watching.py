"""Watching: what is kept of a network while it loads, so that live rows can be looked at later."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from service.graph.norm_inputs import norm_inputs
from service.inspection.baseline import Baseline
from service.inspection.drift import Drift
from service.inspection.watched import Watched, WatchedNorm, parts
from service.plan.observation import Observation
from service.plan.pixels import pixel_probe
from service.plan.preprocessing import Preprocessing
from service.store import baseline as baselines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import fx

    from service.graph.capture import CapturedGraph
    from service.inspection.watched import Part
    from service.network.batch_norm import BatchNorm
    from service.store.model_store import StoredModel

log = logging.getLogger("foldserve.engine")

_BATCH_ROWS = 32
"""No checkpoint says how many rows a batch of its training had."""
_USUAL_MOMENTUM = 0.1


@dataclass(frozen=True)
class Wanted:
    """What the settings ask for."""

    norms: Literal["input", "all"]
    floor: float
    """The least threshold with a baseline."""
    baselines: Path | None = None
    """Where they lie if not beside the weights."""


@dataclass(frozen=True)
class Watching:
    """A version whose live rows can be looked at."""

    observation: Observation
    watched: Watched
    baseline: Baseline | None
    drift: Drift
    probe: np.ndarray
    """A row of pixels, uint8 `[1, C, H, W]`, to try it with."""


def of(
    stored: StoredModel,
    captured: CapturedGraph,
    called: Mapping[str, BatchNorm],
    device: torch.device,
    wanted: Wanted,
) -> Watching | None:
    """What is kept of a captured network whose norms are `called`; None for one without norms."""
    observation, watched = observed(stored, captured, called, device, wanted.norms)
    if observation is None:
        return None
    baseline = _baseline(stored, watched, wanted)
    drift = Drift(stored.name, stored.version, watched, baseline, wanted.floor)
    probe = pixel_probe(stored.manifest.input.shape).unsqueeze(0).numpy()
    return Watching(observation, watched, baseline, drift, probe)


def observed(
    stored: StoredModel,
    captured: CapturedGraph,
    called: Mapping[str, BatchNorm],
    device: torch.device,
    norms: Literal["input", "all"],
) -> tuple[Observation | None, Watched]:
    """The norms that are watched, and the graph up to them; None where there is none."""
    known = {name: norm for name, norm in called.items() if norm.running_mean is not None}
    inputs = norm_inputs(captured, known)
    chosen = [
        (_norm(name, part, known[name], inputs[name]), inputs[name])
        for name, part in zip(inputs, _parts(len(inputs)), strict=True)
        if part == "input" or (part == "content" and norms == "all")
    ]
    watched = Watched(tuple(norm for norm, _ in chosen))
    if not chosen:
        return None, watched
    preprocessing = Preprocessing(stored.manifest.input.mean, stored.manifest.input.std)
    return Observation(captured.module, [nodes for _, nodes in chosen], preprocessing, device), watched


def _parts(count: int) -> list[Part | None]:
    of_number = parts(count)
    return [of_number.get(number) for number in range(count)]


def _norm(name: str, part: Part, norm: BatchNorm, inputs: Sequence[fx.Node]) -> WatchedNorm:
    mean, var, weight = (
        torch.ones(norm.num_features) if vector is None else vector.detach().float()
        for vector in (norm.running_mean, norm.running_var, norm.weight)
    )
    vectors, has_pixels = (mean.numpy(), var.numpy(), weight.numpy()), any(map(_has_pixels, inputs))
    return WatchedNorm(name, part, *vectors, norm.eps, _rows(norm), has_pixels)


def _has_pixels(node: fx.Node) -> bool:
    known = node.meta.get("val")
    return known is None or math.prod(known.shape[2:]) > 1


def _rows(norm: BatchNorm) -> float:
    """How many rows running statistics are worth: with momentum m they are of (2 - m) / m batches."""
    tracked = float(norm.num_batches_tracked or 0)
    momentum = norm.momentum or (0.0 if tracked else _USUAL_MOMENTUM)
    remembered = (2 - momentum) / momentum if momentum else tracked
    return _BATCH_ROWS * max(1.0, min(remembered, tracked or remembered))


def _baseline(stored: StoredModel, watched: Watched, wanted: Wanted) -> Baseline | None:
    """The recorded one; None, and why is in the log, where there is none that fits."""
    try:
        arrays = baselines.read(stored, wanted.baselines)
        return Baseline.from_arrays(arrays, watched)
    except baselines.Missing:
        return None
    except (baselines.NotUsable, ValueError) as why:
        log.warning("%s: the baseline is not used: %s; foldserve calibrate records one", stored, why)
        return None
