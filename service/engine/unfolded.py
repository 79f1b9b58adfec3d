"""The unfolded network of a stored version, and what it answers to the probe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from service.engine.stopwatch import Stopwatch
from service.errors import ModelRefused
from service.graph.capture import capture
from service.graph.reference import Reference
from service.graph.shapes import largest_bytes
from service.network import catalog
from service.network.program import ProgramNetwork
from service.store import program as programs
from service.store import reference as answers
from service.store import weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from service.graph.capture import CapturedGraph
    from service.store.model_store import StoredModel

_LARGEST_VALUE = 1 << 32
"""Bytes; a program may ask for any number, and is asked for one row before anything is computed."""

log = logging.getLogger("foldserve.engine")

Origin = Literal["stored", "computed"]


@dataclass(frozen=True)
class Unfolded:
    """A version as it was trained; everything else is compared with it."""

    network: nn.Module
    reference: Reference
    origin: Origin
    """Whether the reference answers were stored beside the weights or had to be computed."""


def read(stored: StoredModel, step: Stopwatch) -> Unfolded:
    """Read, build and capture the network, and recall its reference answers, or compute them where needed.

    Raises `StoreError` for what is wrong on disk and `ModelRefused` for a network that must not be served.
    """
    network, graph = _captured(stored, step)
    with step("reference"):
        recalled = _recalled(stored, graph)
        reference = recalled or Reference.of(graph)
    if recalled is None:
        log.info(
            "%s: the reference answers took %.1f s; foldserve fold %s --write-reference stores them",
            *(stored, step.seconds["reference"], stored),
        )
    return Unfolded(network, reference, "stored" if recalled else "computed")


def write_reference(stored: StoredModel) -> Path:
    """Compute the reference answers of a version and store them beside its weights; the answer is the file.

    Raises what `read` raises, and `StoreError` where the folder cannot be written to.
    """
    _, graph = _captured(stored, Stopwatch())
    reference = Reference.of(graph)
    return answers.write(stored, reference.rows.numpy(), reference.answers.numpy())


def _captured(stored: StoredModel, step: Stopwatch) -> tuple[nn.Module, CapturedGraph]:
    # Export keeps the frames that called it, and what they hold, until a collection: the tensors are read in
    # a frame that is gone by then.
    network = built(stored, step)
    with step("capture"):
        return network, captured(stored, network)


def captured(stored: StoredModel, network: nn.Module) -> CapturedGraph:
    """The network of a version as one graph; raises `ModelRefused` where there is none."""
    graph = capture(network, torch.zeros(2, *stored.manifest.input.shape))
    if (size := largest_bytes(graph.module.graph)) > _LARGEST_VALUE:
        raise ModelRefused(f"{stored}: one of its calls makes {size:,} bytes for a single row")
    return graph


def built(stored: StoredModel, step: Stopwatch) -> nn.Module:
    """The network of a version with its weights; raises `StoreError` for what is wrong on disk."""
    architecture = stored.manifest.architecture
    if architecture is None:
        return _of_program(stored, step)
    with step("read"):
        tensors = weights.read(stored)
    with step("build"):
        network = catalog.build(architecture, stored.manifest.options)
        weights.assign(network, tensors)
    return network


def _of_program(stored: StoredModel, step: Stopwatch) -> nn.Module:
    with step("read"):
        program = programs.read(stored)
    with step("build"):
        return ProgramNetwork(program)


def _recalled(stored: StoredModel, captured: CapturedGraph) -> Reference | None:
    """The reference with the stored answers; None, and why is in the log, where they cannot be used."""
    try:
        rows, found = map(torch.from_numpy, answers.read(stored))
    except answers.NotUsable as why:
        log.info("%s: the reference answers are computed: %s", stored, why)
        return None
    recalled = Reference.recalled(captured, rows, found)
    if recalled is None:
        log.warning("%s: the stored reference answers are not what the network answers; not used", stored)
    return recalled
