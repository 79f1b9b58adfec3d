"""Parity: the proof that a folded, lowered network computes what the original one computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import ModelRefused

_FLOORS = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_SCALE = 4.0


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


def compare(reference: Tensor, answers: Tensor, unfolded: Tensor, precision: torch.dtype) -> Parity:
    """The parity of `answers` with a float64 `reference`, both `[N, ...]`."""
    own_error = relative_error(reference.double().cpu(), unfolded.double().cpu())
    return judged(reference, answers, own_error, precision)


def judged(reference: Tensor, answers: Tensor, own_error: float, precision: torch.dtype) -> Parity:
    """The parity of `answers` with a float64 `reference`, both `[N, ...]`.

    `own_error` is that of the unfolded network in `precision`.
    """
    reference, answers = reference.double().cpu(), answers.double().cpu()
    disagreements = _disagreements(reference, answers) if answers.shape == reference.shape else ()
    return Parity(
        rows=len(reference),
        max_relative_error=relative_error(reference, answers),
        unfolded_relative_error=own_error,
        tolerance=tolerance(_FLOORS[precision], own_error),
        top1_agreement=1 - len(disagreements) / len(reference),
        disagreements=disagreements,
    )


def tolerance(floor: float, own_error: float) -> float:
    """Four times the unfolded network's own error, if it has one that is a number, or the floor."""
    return max(floor, _SCALE * own_error) if math.isfinite(own_error) else floor


def _disagreements(reference: Tensor, answers: Tensor) -> tuple[Disagreement, ...]:
    flat, largest = reference.reshape(len(reference), -1), float(reference.abs().max()) or 1.0
    expected, got = flat.argmax(1), answers.reshape(len(answers), -1).argmax(1)
    return tuple(
        Disagreement(row, int(e), int(g), float(flat[row, e] - flat[row, g]) / largest)
        for row, (e, g) in enumerate(zip(expected, got, strict=True))
        if e != g
    )


def relative_error(reference: Tensor, answers: Tensor, largest: float = 0.0) -> float:
    """The largest absolute difference over the largest absolute reference value, or `largest` if larger."""
    if reference.shape != answers.shape:
        return float("inf")
    largest = max(largest, float(reference.abs().max())) if reference.numel() else 0.0
    return float((answers - reference).abs().max()) / (largest or 1.0) if reference.numel() else 0.0


def row_errors(reference: Tensor, answers: Tensor) -> Tensor:
    """Of each row what `relative_error` is of all: float64 `[N]`, infinite where an answer is no number."""
    reference, answers = reference.double(), answers.double()
    if reference.shape != answers.shape:
        return torch.full((len(reference),), float("inf"), dtype=torch.float64)
    errors = (answers - reference).abs().flatten(1).amax(1) / (float(reference.abs().max()) or 1.0)
    return errors.nan_to_num(nan=float("inf"), posinf=float("inf"))
