"""The report of an evaluation: what it claims, and what it does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.evaluation.contenders import Contender
    from service.evaluation.evaluation import Evaluation
    from service.evaluation.tally import Tally


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The report as JSON has it; what is not claimed is null, with the reason beside it."""
    exact = evaluation.exact.tally
    return {
        "model": evaluation.stored.name,
        "version": evaluation.stored.version,
        "images": exact.rows,
        "classes": len(exact.shown),
        "accuracy_by_chance": exact.by_chance,
        "networks": [
            _exact(evaluation.exact),
            *(_compared(contender, exact) for contender in evaluation.others),
        ],
        "refused": [asdict(refused) for refused in evaluation.refused],
        "unreadable": [asdict(unreadable) for unreadable in evaluation.unreadable],
        "empty": list(evaluation.empty),
    }


def why_not_claimed(exact: Tally, tally: Tally) -> str | None:
    """Why agreement says nothing about `tally`'s network; None where it does."""
    if not exact.is_better_than_chance:
        return (
            f"the accuracy, {exact.accuracy:.1%}, is no better than by chance, {exact.by_chance:.1%}: "
            "as with random weights, or with images of one class"
        )
    if 2 * tally.settled <= tally.rows:
        return (
            f"the margin of {tally.rows - tally.settled} of {tally.rows} images is within twice the error: "
            "whether these agree is luck"
        )
    return None


def _exact(contender: Contender) -> dict[str, Any]:
    return {
        "network": contender.network,
        "precision": contender.precision,
        "serves": contender.serves,
        "correct": contender.tally.correct,
        "accuracy": contender.tally.accuracy,
    }


def _compared(contender: Contender, exact: Tally) -> dict[str, Any]:
    tally, reason = contender.tally, why_not_claimed(exact, contender.tally)
    return {
        **_exact(contender),
        "same_top1": tally.same,
        "top1_agreement": tally.same / tally.rows if reason is None else None,
        "not_claimed": reason,
        "settled": tally.settled,
        "largest_logit_error": tally.largest_error,
        "relative_error": tally.relative_error,
        "disagreements": [asdict(disagreement) for disagreement in tally.disagreements],
    }
