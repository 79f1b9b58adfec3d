"""What the fold makes of one architecture: how many norms there are, how many it keeps, and the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.parity import relative_error
from service.graph.precision import astype
from service.graph.probe import probe
from service.graph.reference import Reference
from service.network import catalog
from service.network.random_stats import randomise

from .libraries import torchvision_models

if TYPE_CHECKING:
    from service.graph.parity import Parity
    from service.graph.report import FoldReport


@dataclass(frozen=True)
class Findings:
    """The report of the fold, its parity in float32, and what the folded graph is off by in float64."""

    report: FoldReport
    parity: Parity
    float64_error: float


def swept(architecture: str, row: list[int], options: dict[str, Any], probes: int = 2) -> Findings:
    """Build, randomise, capture, fold and prove `architecture` on so many rows of the shape `row`."""
    torchvision_models()
    torch.manual_seed(0)
    network = catalog.build(architecture, options)
    randomise(network, 0)
    captured = capture(network, torch.randn(2, *row))
    reference = Reference.of(captured, probe(captured, probes))
    folded = fold_graph(reference)
    parity = reference.expected(torch.float32).prove(astype(folded.module, torch.float32))
    with torch.inference_mode():
        answers = astype(folded.module, torch.float64)(reference.rows.double())
    return Findings(folded.report, parity, relative_error(reference.answers, answers))
