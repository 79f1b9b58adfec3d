"""Parity: the proof that a folded, lowered network computes what the original one computes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from service.errors import ModelRefused
from service.graph.capture import module_name
from service.graph.chains import batch_statistics_norms
from service.graph.constants import Constants
from service.graph.precision import compute
from service.graph.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import fx

    from service.graph.capture import CapturedGraph
    from service.graph.samples import Samples

_PIXELS = 256
_FLOORS = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_SCALE = 4.0
_ROW_INDEPENDENCE = 1e-9
_EXACT = 1e-6
_RECOGNISED = 1e-4


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
        _refuse_batch_statistics(captured)
        rows = probe(captured) if rows is None else rows
        answers = compute(captured.module, rows, torch.float64)
        if not bool(answers.isfinite().all()):
            raise ModelRefused("the network's own answers to the probe are not finite numbers")
        _refuse_dependent_rows(captured.module, rows, answers)
        return Reference(captured, rows, answers)

    @staticmethod
    def recalled(captured: CapturedGraph, rows: Tensor, answers: Tensor) -> Reference | None:
        """The reference with `answers` that `of` gave earlier; None where the network answers otherwise.

        The network is asked in float32, with a tolerance of 1e-4. Its own error sets the tolerance of every
        proof, so that with answers of something else anything would be proven. Raises `ModelRefused`
        where norms use batch statistics.
        """
        _refuse_batch_statistics(captured)
        reference = Reference(captured, rows, answers)
        own_error = relative_error(answers, reference.unfolded(torch.float32).double())
        return reference if own_error <= _RECOGNISED else None

    @torch.inference_mode()
    def unfolded(self, precision: torch.dtype) -> Tensor:
        """What the unfolded graph answers in `precision`: the error that rounding alone makes."""
        if precision not in self._unfolded:
            self._unfolded[precision] = compute(self.captured.module, self.rows, precision)
        return self._unfolded[precision]

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


def prove(
    reference: Reference,
    run: Callable[[Tensor], Tensor],
    precision: torch.dtype,
    batches: Sequence[int] = (),
) -> Parity:
    """Compare `run` with the reference in `precision`, as `Expected.prove` does."""
    return reference.expected(precision).prove(run, batches)


def pixel_probe(row: Sequence[int]) -> Tensor:
    """One row of random pixels, `uint8`, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, _PIXELS, list(row), dtype=torch.uint8, generator=generator)


def require_same(
    inputs: Tensor, pixels: Mapping[int, Tensor], tolerance: float, largest: float = 0.0
) -> None:
    """Raise `ModelRefused` where pixels are answered otherwise than the network inputs that they stand for.

    `inputs` is the answer to one row `[1, ...]` of network inputs, `pixels` that to so many copies of the
    row as pixels, `largest` how large the network's answers are: this one may happen to be near 0. What the
    network makes of inputs is proven elsewhere, so this needs no float64.
    """
    for size, answers in pixels.items():
        expected = inputs.double().expand(size, *inputs.shape[1:])
        error = relative_error(expected, answers.double(), largest)
        if not error <= tolerance:
            raise ModelRefused(
                f"parity failed: the answers to {size} rows of pixels differ by {error:.2e} from those to "
                f"the network inputs that they stand for, which is over {tolerance:.2e}"
            )


@torch.inference_mode()
def miscomputes(reference: Reference, folded: fx.GraphModule, samples: Samples | None = None) -> str | None:
    """Why a folded graph is not the unfolded one in exact arithmetic; None where it is.

    Both run in float64, where rounding explains next to nothing: bounds of clamps are float32, so the
    tolerance is 1e-6, or four times the unfolded network's float32 error where that is more. `samples` are
    taken of the folded graph's computation.
    """
    answers = compute(folded, reference.rows, torch.float64, samples)
    error = relative_error(reference.answers, answers)
    if error <= _EXACT:
        return None
    own_error = relative_error(reference.answers, reference.unfolded(torch.float32).double())
    is_right = error <= _tolerance(_EXACT, own_error)
    return None if is_right else f"it changes the answers by {error:.1e} in float64"


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
        tolerance=_tolerance(_FLOORS[precision], own_error),
        top1_agreement=1 - len(disagreements) / len(reference),
        disagreements=disagreements,
    )


def _tolerance(floor: float, own_error: float) -> float:
    """Four times the unfolded network's own error, if it has one that is a number, or the floor."""
    return max(floor, _SCALE * own_error) if math.isfinite(own_error) else floor


def _repeated(values: Tensor, size: int) -> Tensor:
    """The values of each row, again and again, for `size` rows."""
    return values[torch.arange(size) % len(values)]


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


def _refuse_batch_statistics(captured: CapturedGraph) -> None:
    found = batch_statistics_norms(captured.module.graph, Constants(captured.module))
    dependent = [module_name(node) or node.name for node in found]
    if dependent:
        raise ModelRefused(
            f"norms use batch statistics at inference ({', '.join(dependent)}): "
            "one caller's answer would depend on another's input"
        )


def _refuse_dependent_rows(module: fx.GraphModule, rows: Tensor, together: Tensor) -> None:
    """One caller's answer must not depend on another's input: the first row and the last are asked alone."""
    try:
        alone = [compute(module, row, torch.float64) for row in (rows[:1], rows[-1:])]
    except (RuntimeError, IndexError, ValueError) as error:
        raise ModelRefused(f"the network cannot compute one row alone: {error}") from error
    each = len(together) // len(rows)
    expected = [together[:each], together[-each:]]
    if [list(answer.shape) for answer in alone] != [list(answer.shape) for answer in expected]:
        raise ModelRefused(
            f"one row alone is answered with the shape {list(alone[0].shape)} and not "
            f"{list(expected[0].shape)}: perhaps a squeeze() drops its batch axis"
        )
    if not relative_error(torch.cat(expected), torch.cat(alone)) <= _ROW_INDEPENDENCE:
        raise ModelRefused(
            "an answer depends on the other rows of its batch, as with batch statistics at inference"
        )
