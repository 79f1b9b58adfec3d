"""What is counted, what is listed, and when agreement is no luck."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.evaluation.pictures import Picture
from service.evaluation.report import why_not_claimed
from service.evaluation.tally import Disagreement, Tally

EXACT = torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 1.75], [1.0, 0.0, 3.0], [0.5, 0.0, 0.25]]).double()


def pictures(*labels: int) -> list[Picture]:
    return [Picture(Path(), f"{label}/{row}.png", label) for row, label in enumerate(labels)]


def tally_of(answers: Tensor, *labels: int, exact: Tensor = EXACT) -> Tally:
    tally = Tally()
    tally.count(pictures(*labels), exact, answers)
    return tally


def test_right_is_what_the_folder_says_and_same_is_what_float64_says() -> None:
    tally = tally_of(EXACT, 0, 1, 0, 0)
    assert (tally.rows, tally.correct, tally.same, tally.accuracy) == (4, 3, 4, 0.75)
    assert (tally.disagreements, tally.largest_error) == ([], 0)


def test_a_disagreement_has_its_float64_margin_beside_the_largest_error_of_the_image() -> None:
    answers = EXACT.clone()
    answers[1] = torch.tensor([0.5, 1.75, 2.0])
    tally = tally_of(answers, 0, 2, 2, 0)
    assert tally.disagreements == [Disagreement("2/1.png", expected=1, got=2, margin=0.25, error=0.5)]
    assert (tally.same, tally.correct) == (3, 4)
    assert (tally.largest_error, tally.relative_error) == (0.5, 0.125)


def test_an_answer_is_settled_where_the_margin_is_over_twice_the_error() -> None:
    answers = EXACT.clone()
    answers[:, 0] += 0.125  # margins 3, 0.25, 2, 0.25
    assert tally_of(answers, 0, 1, 2, 0).settled == 2
    answers = EXACT.clone()
    answers[:, 0] += 0.1249
    assert tally_of(answers, 0, 1, 2, 0).settled == 4


def test_answers_that_are_no_numbers_settle_nothing() -> None:
    tally = tally_of(torch.full_like(EXACT, math.nan), 0, 1, 2, 0)
    assert (tally.settled, tally.largest_error) == (0, math.inf)


def test_a_single_logit_cannot_disagree() -> None:
    one = torch.ones(4, 1).double()
    tally = tally_of(one + 1, 0, 0, 0, 0, exact=one)
    assert (tally.same, tally.settled) == (4, 4)


def test_batches_add_up() -> None:
    tally = Tally()
    for row, label in enumerate((0, 1, 0, 0)):
        tally.count(pictures(label), EXACT[row : row + 1], EXACT[row : row + 1])
    assert tally == tally_of(EXACT, 0, 1, 0, 0)


def answered(labels: list[int], got: list[int]) -> Tally:
    logits = torch.nn.functional.one_hot(torch.tensor(got), 10).double()
    return tally_of(logits, *labels, exact=logits)


def test_chance_is_what_the_same_answers_would_give_to_shuffled_images() -> None:
    labels, got = [0] * 60 + [1] * 40, [0] * 90 + [1] * 10
    generator = torch.Generator().manual_seed(0)
    orders = (torch.randperm(100, generator=generator) for _ in range(2000))
    shuffled = [float((torch.tensor(got)[order] == torch.tensor(labels)).float().mean()) for order in orders]
    assert answered(labels, got).by_chance == pytest.approx(0.58)
    assert sum(shuffled) / len(shuffled) == pytest.approx(0.58, abs=0.01)


@pytest.mark.parametrize(
    ("labels", "got", "is_better"),
    [
        (list(range(10)) * 10, list(range(10)) * 10, True),
        (list(range(10)) * 10, [3] * 100, False),
        (list(range(10)) * 10, [3] * 95 + list(range(5)), False),
        ([0] * 90 + [1] * 10, [0] * 100, False),
        ([0] * 90 + [1] * 10, [0] * 90 + [1] * 10, True),
        ([5] * 50, [5] * 50, False),
        ([0, 1], [0, 1], False),
    ],
    ids=["right", "one answer", "nearly", "the usual class", "a rare class", "one class", "two images"],
)
def test_accuracy_means_something_where_chance_does_not_explain_it(
    labels: list[int], got: list[int], is_better: bool
) -> None:
    assert answered(labels, got).is_better_than_chance == is_better


def test_agreement_is_claimed_of_a_trained_network_and_small_errors_only() -> None:
    labels = list(range(10)) * 10
    logits = torch.nn.functional.one_hot(torch.tensor(labels), 10).double()
    exact = tally_of(logits, *labels, exact=logits)
    near = logits + 0.49 * torch.eye(10)[0]
    assert why_not_claimed(exact, tally_of(near, *labels, exact=logits)) is None
    far = tally_of(logits + 0.51 * torch.eye(10)[0], *labels, exact=logits)
    assert "the margin of 100 of 100 images is within twice the error" in str(why_not_claimed(exact, far))
    untrained = tally_of(logits, *([3] * 100), exact=logits)
    assert "no better than by chance" in str(why_not_claimed(untrained, untrained))
