"""The tally: how often one network is right, and how often it says what the unfolded float64 one says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from service.evaluation.pictures import Picture

_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Disagreement:
    """An image whose largest logit is not the float64 network's."""

    image: str
    expected: int
    """What the float64 network says, right or wrong."""
    got: int
    margin: float
    """How far apart the float64 network's two logits are."""
    error: float
    """The largest error of a logit of this image: half the margin at least, or it would agree."""


@dataclass
class Tally:
    """Counts over batches. Logits are compared in float64."""

    rows: int = 0
    correct: int = 0
    same: int = 0
    """Rows whose largest logit is the float64 network's."""
    settled: int = 0
    """Rows whose float64 margin is over twice the largest error: that they agree is no luck."""
    largest_error: float = 0.0
    largest_logit: float = 0.0
    disagreements: list[Disagreement] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)
    shown: Counter[int] = field(default_factory=Counter)

    def count(self, pictures: Sequence[Picture], exact: Tensor, answers: Tensor) -> None:
        """Count a batch: float64 logits `[N, classes]` and this network's own."""
        answers = answers.double().cpu()
        got, expected = answers.argmax(1), exact.argmax(1)
        errors = (answers - exact).abs().amax(1).nan_to_num(nan=math.inf, posinf=math.inf)
        labels = torch.tensor([picture.label for picture in pictures])
        self.rows += len(pictures)
        self.correct += int((got == labels).sum())
        self.same += int((got == expected).sum())
        self.settled += int((_margins(exact) > 2 * errors).sum())
        self.largest_error = max(self.largest_error, float(errors.max()))
        self.largest_logit = max(self.largest_logit, float(exact.abs().max()))
        self.answered.update(got.tolist())
        self.shown.update(labels.tolist())
        for row in (got != expected).nonzero().flatten().tolist():
            margin = float(exact[row, expected[row]] - exact[row, got[row]])
            self.disagreements.append(
                Disagreement(
                    pictures[row].name, int(expected[row]), int(got[row]), margin, float(errors[row])
                )
            )

    @property
    def accuracy(self) -> float:
        """The fraction of right answers."""
        return self.correct / self.rows

    @property
    def by_chance(self) -> float:
        """The accuracy that the same answers would have if the images were shuffled."""
        return sum(self.answered[label] * shown for label, shown in self.shown.items()) / self.rows**2

    @property
    def is_better_than_chance(self) -> bool:
        """Whether more is right than chance explains: by three standard deviations."""
        deviation = math.sqrt(self.by_chance * (1 - self.by_chance) / self.rows)
        return self.accuracy > self.by_chance + _DEVIATIONS * deviation

    @property
    def relative_error(self) -> float:
        """The largest error of a logit over the largest float64 logit."""
        return self.largest_error / (self.largest_logit or 1.0)


def _margins(logits: Tensor) -> Tensor:
    """Between the largest and the second largest logit of each row; infinite where there is only one."""
    if logits.shape[1] < 2:
        return torch.full((len(logits),), math.inf)
    best = logits.topk(2, 1).values
    return best[:, 0] - best[:, 1]
