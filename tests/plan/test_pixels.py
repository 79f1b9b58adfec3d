"""Pixels, answered as the network inputs that they stand for, or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from service.errors import ModelRefused
from service.plan.pixels import pixel_probe, require_same

ANSWER = torch.tensor([[1.0, -4.0, 2.0]])


def test_pixels_may_differ_from_the_inputs_that_they_stand_for_by_the_tolerance() -> None:
    near = torch.tensor([0.0, 0.0, 4 * 0.0099])
    require_same(ANSWER, {2: ANSWER.repeat(2, 1), 1: ANSWER + near}, 0.01)


def test_where_the_answer_is_near_0_pixels_may_differ_by_the_tolerance_of_larger_answers() -> None:
    small, other = 1e-3 * ANSWER, 1e-3 * ANSWER + 0.039
    require_same(small, {1: other}, 0.01, largest=4.0)
    with pytest.raises(ModelRefused):
        require_same(small, {1: other}, 0.01)
    with pytest.raises(ModelRefused):
        require_same(small, {1: other}, 0.01, largest=3.0)


@pytest.mark.parametrize(
    "answers",
    [
        ANSWER + torch.tensor([[4 * 0.0101, 0.0, 0.0]]),
        ANSWER * float("nan"),
        ANSWER[:, :2],
        ANSWER.expand(3, 3),
    ],
    ids=["too far", "no numbers", "another shape", "more rows"],
)
def test_pixels_that_are_answered_otherwise_are_refused(answers: Tensor) -> None:
    with pytest.raises(ModelRefused, match="the answers to 1 rows of pixels differ"):
        require_same(ANSWER, {2: ANSWER.repeat(2, 1), 1: answers}, 0.01)


def test_the_probe_of_pixels_is_the_same_at_every_call_and_spans_their_values() -> None:
    row = pixel_probe([3, 32, 32])
    assert (row.dtype, row.shape) == (torch.uint8, (3, 32, 32))
    assert torch.equal(row, pixel_probe([3, 32, 32]))
    assert (int(row.min()), int(row.max())) == (0, 255)
