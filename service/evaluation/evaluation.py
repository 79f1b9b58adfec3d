"""Evaluation: every network answers the same images, one batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from service.engine import unfolded as sources
from service.engine.stopwatch import Stopwatch
from service.errors import InvalidConfiguration
from service.evaluation import contenders, pictures
from service.evaluation.batches import Batches
from service.evaluation.contenders import Contender, Refused
from service.evaluation.sample import Sample
from service.plan import bucket
from service.store import golden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.engine.unfolded import Unfolded
    from service.evaluation.batches import Batch, Unreadable
    from service.evaluation.pictures import Pictures
    from service.graph.capture import CapturedGraph
    from service.store.golden import Golden
    from service.store.model_store import StoredModel

_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Limits:
    """What serving would refuse of one image."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True)
class Evaluation:
    """How a version does on a folder of images."""

    stored: StoredModel
    exact: Contender
    """The unfolded network in float64, which all others are held against."""
    others: tuple[Contender, ...]
    """The unfolded network in float32, the plan that serves, and the plans in other precisions."""
    refused: tuple[Refused, ...]
    """The precisions in which it must not be served."""
    unreadable: tuple[Unreadable, ...]
    empty: tuple[str, ...]
    """The folders without an image."""
    sample: Golden | None
    """The first images, which may become golden inputs; None where none were to be kept."""

    @property
    def serving(self) -> Contender:
        """The plan that serves."""
        return next(contender for contender in self.others if contender.serves)


def evaluate(
    stored: StoredModel,
    folder: Path,
    device: torch.device,
    *,
    precision: str,
    threads: int,
    limits: Limits,
    keep_golden: bool = True,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Let the unfolded network and the plans answer the images of `folder`, one folder a class.

    `progress` is told after each batch how many images are done, of how many. Raises what `load` raises, and
    `InvalidConfiguration` where folders match no class or no image can be read.
    """
    source = sources.read(stored, Stopwatch())
    found = _pictures(stored, folder, source)
    captured = source.reference.captured
    exact, single = (contenders.unfolded(stored, captured, d) for d in (torch.float64, torch.float32))
    plans = contenders.folded(stored, source, device, precision, threads)
    others = (single, *(plan for plan in plans if isinstance(plan, Contender)))
    batches = Batches(stored.manifest.input, _rows_at_once(captured), limits.max_bytes, limits.max_pixels)
    sample = Sample(golden.at_most(stored.manifest.input.shape) if keep_golden else 0)
    for batch in batches.of(found.pictures):
        _answer(batch, exact, others, sample)
        progress(exact.tally.rows + len(batches.unreadable), len(found.pictures))
    if not exact.tally.rows:
        first = batches.unreadable[0]
        raise InvalidConfiguration(f"no image can be read; {first.image}: {first.reason}")
    return Evaluation(
        stored,
        exact,
        others,
        refused=tuple(plan for plan in plans if isinstance(plan, Refused)),
        unreadable=tuple(batches.unreadable),
        empty=found.empty,
        sample=sample.golden(stored, captured),
    )


def _pictures(stored: StoredModel, folder: Path, source: Unfolded) -> Pictures:
    shape = list(source.reference.answers.shape[1:])
    if stored.manifest.output.task != "classification" or len(shape) != 1:
        raise InvalidConfiguration(f"{stored} is no classification: there is no accuracy to measure")
    found = pictures.of(folder, stored.labels(), shape[0])
    if not found.pictures:
        raise InvalidConfiguration(f"{folder.name!r} holds no image")
    return found


def _rows_at_once(captured: CapturedGraph) -> int:
    graph, cpu = captured.module.graph, captured.example.device
    return bucket.largest(graph, _LARGEST_BATCH, precision=torch.float64, device=cpu)


@torch.inference_mode()
def _answer(batch: Batch, exact: Contender, others: tuple[Contender, ...], sample: Sample) -> None:
    pixels = torch.from_numpy(batch.pixels)
    expected = exact.answer(pixels)
    exact.tally.count(batch.pictures, expected, expected)
    for contender in others:
        contender.tally.count(batch.pictures, expected, contender.answer(pixels))
    sample.take(batch, expected)
