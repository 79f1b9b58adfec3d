"""Reference: what the unfolded network answers to the probe, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph.parity import compare, relative_error, tolerance
from service.graph.precision import compute
from service.graph.probe import probe
from service.graph.row_independence import refuse_batch_statistics, refuse_dependent_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, fx

    from service.graph.capture import CapturedGraph
    from service.graph.parity import Parity
    from service.graph.samples import Samples

_EXACT = 1e-6
_RECOGNISED = 1e-4


@dataclass(frozen=True)
class Reference:
    """What the unfolded network answers to the probe, in float64: computed once, compared with often."""

    captured: CapturedGraph
    rows: Tensor
    """The probe: float32 `[N, ...]`."""
    answers: Tensor
    """float64 `[N, ...]`."""
    # What has been computed so far: the unfolded network's answers by precision.
    _unfolded: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    @torch.inference_mode()
    def of(captured: CapturedGraph, rows: Tensor | None = None) -> Reference:
        """Answer float32 `rows`, else those of `probe`, with the unfolded graph in float64.

        Raises `ModelRefused` where the answers are no finite numbers, or one depends on other rows.
        """
        refuse_batch_statistics(captured)
        rows = probe(captured) if rows is None else rows
        answers = compute(captured.module, rows, torch.float64)
        if not bool(answers.isfinite().all()):
            raise ModelRefused("the network's own answers to the probe are not finite numbers")
        refuse_dependent_rows(captured.module, rows, answers)
        return Reference(captured, rows, answers)

    @staticmethod
    def recalled(captured: CapturedGraph, rows: Tensor, answers: Tensor) -> Reference | None:
        """The reference with `answers` that `of` gave earlier; None where the network answers otherwise.

        The network is asked in float32, with a tolerance of 1e-4. Its own error sets the tolerance of every
        proof, so that with answers of something else anything would be proven. Raises `ModelRefused`
        where norms use batch statistics.
        """
        refuse_batch_statistics(captured)
        reference = Reference(captured, rows, answers)
        return reference if reference.own_error(torch.float32) <= _RECOGNISED else None

    @torch.inference_mode()
    def unfolded(self, precision: torch.dtype) -> Tensor:
        """What the unfolded graph answers in `precision`: the error that rounding alone makes."""
        if precision not in self._unfolded:
            self._unfolded[precision] = compute(self.captured.module, self.rows, precision)
        return self._unfolded[precision]

    def own_error(self, precision: torch.dtype) -> float:
        """The relative error of what the unfolded graph answers in `precision`."""
        return relative_error(self.answers, self.unfolded(precision).double())

    @torch.inference_mode()
    def mistake_of(self, folded: fx.GraphModule, samples: Samples | None = None) -> str | None:
        """Why a folded graph is not the unfolded one in exact arithmetic; None where it is.

        Both run in float64, where rounding explains next to nothing: bounds of clamps are float32, so the
        tolerance is 1e-6, or four times the unfolded network's float32 error where that is more. `samples`
        are taken of the folded graph's computation.
        """
        error = relative_error(self.answers, compute(folded, self.rows, torch.float64, samples))
        if error <= _EXACT or error <= tolerance(_EXACT, self.own_error(torch.float32)):
            return None
        return f"it changes the answers by {error:.1e} in float64"

    def expected(self, precision: torch.dtype) -> Expected:
        """What a plan in `precision` is compared with, which needs the network no longer."""
        return Expected(self.rows, self.answers, self.unfolded(precision), precision)


@dataclass(frozen=True)
class Expected:
    """What the rows of a probe are to be answered with, and how exactly."""

    rows: Tensor
    """float32 `[N, ...]`."""
    answers: Tensor
    """float64 `[N, ...]`."""
    unfolded: Tensor
    """The unfolded network's own answers in `precision`."""
    precision: torch.dtype

    @torch.inference_mode()
    def prove(self, run: Callable[[Tensor], Tensor], batches: Sequence[int] = ()) -> Parity:
        """Compare `run`, which takes float32 rows, with what is expected: the worst of all batch sizes.

        `batches` are asked beside the probe's own size, since a backend may compute each in its own way.
        The tolerance is the precision's own floor, or four times the error that the unfolded network
        has in that precision, whichever is larger: some networks amplify any rounding.
        """
        proofs = [compare(self.answers, run(self.rows), self.unfolded, self.precision)]
        for size in set(batches) - {len(self.rows)}:
            expected, rows, own = (_repeated(t, size) for t in (self.answers, self.rows, self.unfolded))
            proofs.append(compare(expected, run(rows), own, self.precision))
        worst = max(
            proofs, key=lambda parity: (math.isnan(parity.max_relative_error), parity.max_relative_error)
        )
        return replace(worst, rows=len(self.rows))


def _repeated(values: Tensor, size: int) -> Tensor:
    """The values of each row, again and again, for `size` rows."""
    return values[torch.arange(size) % len(values)]
