"""Parity: the proof that a folded, lowered network computes what the original one computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from service.errors import ModelRefused
from service.graph.precision import astype

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph.capture import CapturedGraph

_PROBE_ROWS = 4
_FLOORS = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_SCALE = 4.0
_ROW_INDEPENDENCE = 1e-9


@dataclass(frozen=True)
class Disagreement:
    """A probe row whose largest logit is not the reference's."""

    row: int
    expected: int
    got: int
    margin: float
    """How far apart the reference's two logits are, relative to its largest absolute logit."""


@dataclass(frozen=True)
class Parity:
    """Answers against the unfolded network in float64, on the same rows.

    Errors are the largest absolute difference over the largest absolute reference value.
    """

    rows: int
    max_relative_error: float
    unfolded_relative_error: float
    """The unfolded network's own error in the serving precision: what rounding alone costs."""
    tolerance: float
    top1_agreement: float
    """The fraction of rows whose largest output is the reference's."""
    disagreements: tuple[Disagreement, ...]

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance; infinite or no number, it never is."""
        return math.isfinite(self.max_relative_error) and self.max_relative_error <= self.tolerance

    def required(self) -> Parity:
        """This parity; raises `ModelRefused` where it does not hold."""
        if not self.holds:
            raise ModelRefused(
                f"parity failed: relative error {self.max_relative_error:.2e} against the unfolded float64 "
                f"network is over {self.tolerance:.2e}"
            )
        return self


def probe(captured: CapturedGraph, rows: int = _PROBE_ROWS) -> Tensor:
    """Standard normal network inputs `[rows, ...]`, float32, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, *captured.example.shape[1:], generator=generator)


def prove(
    captured: CapturedGraph, run: Callable[[Tensor], Tensor], precision: torch.dtype, rows: Tensor
) -> Parity:
    """Compare `run` with the unfolded graph in float64 on float32 `rows`.

    The tolerance is the precision's own floor, or four times the error that the unfolded network
    has in that precision, whichever is larger: some networks amplify any rounding. Raises
    `ModelRefused` where an answer depends on the other rows of a batch.
    """
    with torch.inference_mode():
        exact = astype(captured.module, torch.float64)
        reference = exact(rows.double())
        if not bool(reference.isfinite().all()):
            raise ModelRefused("the network's own answers to the probe are not finite numbers")
        _refuse_dependent_rows(exact, rows.double(), reference)
        unfolded = astype(captured.module, precision)(rows.to(precision))
        return compare(reference, run(rows), unfolded, precision)


def compare(reference: Tensor, answers: Tensor, unfolded: Tensor, precision: torch.dtype) -> Parity:
    """The parity of `answers` with a float64 `reference`, both `[N, ...]`."""
    reference, answers = reference.double().cpu(), answers.double().cpu()
    own_error = relative_error(reference, unfolded.double().cpu())
    disagreements = _disagreements(reference, answers) if answers.shape == reference.shape else ()
    return Parity(
        rows=len(reference),
        max_relative_error=relative_error(reference, answers),
        unfolded_relative_error=own_error,
        tolerance=max(_FLOORS[precision], _SCALE * own_error),
        top1_agreement=1 - len(disagreements) / len(reference),
        disagreements=disagreements,
    )


def _disagreements(reference: Tensor, answers: Tensor) -> tuple[Disagreement, ...]:
    flat, largest = reference.reshape(len(reference), -1), float(reference.abs().max()) or 1.0
    expected, got = flat.argmax(1), answers.reshape(len(answers), -1).argmax(1)
    return tuple(
        Disagreement(row, int(e), int(g), float(flat[row, e] - flat[row, g]) / largest)
        for row, (e, g) in enumerate(zip(expected, got, strict=True))
        if e != g
    )


def relative_error(reference: Tensor, answers: Tensor) -> float:
    """The largest absolute difference over the largest absolute reference value."""
    if reference.shape != answers.shape:
        return float("inf")
    largest = float(reference.abs().max()) if reference.numel() else 0.0
    return float((answers - reference).abs().max()) / (largest or 1.0) if reference.numel() else 0.0


def _refuse_dependent_rows(exact: Callable[[Tensor], Tensor], rows: Tensor, together: Tensor) -> None:
    """One caller's answer must not depend on another's input."""
    alone = torch.cat([exact(row) for row in torch.split(rows, 1)])
    if not relative_error(together, alone) <= _ROW_INDEPENDENCE:
        raise ModelRefused(
            "an answer depends on the other rows of its batch: some layer uses batch statistics at inference"
        )
