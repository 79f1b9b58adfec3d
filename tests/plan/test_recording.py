"""Recordings without a device: which bucket answers, what lies beside the rows, and what is recorded when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from service.plan.recording import Recordings, smallest

from .lowered import assert_exact, inputs, lowered_for_cudnn

if TYPE_CHECKING:
    from collections.abc import Callable


class CpuRecorder:
    """Records for the CPU. As on a device, each recording has one tensor that it writes its answers to."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.recorded = list[int]()
        self.replayed = list[int]()

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        answer = compute().clone()
        self.recorded.append(len(answer))

        def replay() -> Tensor:
            self.replayed.append(len(answer))
            return answer.copy_(compute())

        return replay

    def wait(self) -> None:
        pass

    def pool_bytes(self) -> int:
        return 1000 * len(self.recorded)


class Doubling:
    """Answers a row with twice its values, in float32; keeps what it was given last."""

    def __init__(self) -> None:
        self.recorder = CpuRecorder()
        self.given = torch.empty(0)
        self.recordings = Recordings(self._compute, self.recorder, [1, 2, 4, 6])

    def _compute(self, rows: Tensor) -> Tensor:
        self.given = rows
        return rows.float() * 2

    def assert_answers(self, rows: Tensor) -> None:
        assert torch.equal(self.recordings(rows), rows.float() * 2)


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.mark.parametrize(("count", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 6), (6, 6)])
def test_rows_are_answered_by_the_smallest_bucket_that_holds_them(
    doubling: Doubling, count: int, bucket: int
) -> None:
    doubling.assert_answers(inputs(count, 3, 2, 2))
    assert doubling.recorder.replayed == [bucket]
    assert smallest([6, 4, 2, 1], count) == bucket


def test_more_rows_than_the_largest_bucket_holds_are_refused(doubling: Doubling) -> None:
    doubling.assert_answers(inputs(2, 3, 2, 2))
    with pytest.raises((ValueError, RuntimeError)):
        doubling.recordings(inputs(7, 3, 2, 2))


def test_every_bucket_is_recorded_once_for_each_dtype_the_largest_first(doubling: Doubling) -> None:
    pixels = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8)
    for count in (3, 1, 6):
        doubling.assert_answers(inputs(count, 3, 2, 2))
    assert doubling.recorder.recorded == [6, 4, 2, 1]
    for count in (2, 5):
        doubling.assert_answers(pixels[:count])
    assert doubling.recorder.recorded == [6, 4, 2, 1] * 2
    doubling.assert_answers(inputs(4, 3, 2, 2))
    assert doubling.recorder.recorded == [6, 4, 2, 1] * 2


def test_nothing_is_recorded_before_the_first_rows_come(doubling: Doubling) -> None:
    assert doubling.recorder.recorded == []


def test_every_bucket_reads_the_same_memory(doubling: Doubling) -> None:
    places = set()
    for count in (1, 2, 3, 5):
        doubling.assert_answers(inputs(count, 3, 2, 2))
        places.add(doubling.given.data_ptr())
    assert len(places) == 1


def test_rows_that_are_left_from_an_earlier_batch_are_computed_beside_but_not_answered(
    doubling: Doubling,
) -> None:
    doubling.recordings(torch.full((6, 3), torch.nan))
    doubling.assert_answers(torch.ones(3, 3))
    doubling.recordings(torch.ones(1, 3))
    doubling.assert_answers(torch.zeros(3, 3))
    assert doubling.given[3].isnan().all()  # the bucket of four holds one that is left


def test_an_answer_stays_as_it_is_when_more_rows_come(doubling: Doubling) -> None:
    first = doubling.recordings(torch.full((2, 3), 1.0))
    doubling.recordings(torch.full((2, 3), 5.0))
    assert torch.equal(first, torch.full((2, 3), 2.0))


def test_the_rows_are_left_as_they_were(doubling: Doubling) -> None:
    rows = inputs(3, 2)
    before = rows.clone()
    doubling.recordings(rows).zero_()
    assert torch.equal(rows, before)


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 1), (3, 2, 2)], ids=str)
def test_rows_of_another_shape_are_refused_and_not_spread_over_the_recorded_ones(
    doubling: Doubling, shape: tuple[int, ...]
) -> None:
    doubling.assert_answers(inputs(2, 2, 3, 3))
    with pytest.raises(ValueError, match=r"rows of \[.*\] where \[2, 3, 3\] are recorded"):
        doubling.recordings(inputs(2, *shape))


def test_rows_in_any_layout_are_answered(doubling: Doubling) -> None:
    doubling.assert_answers(inputs(5, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    doubling.assert_answers(inputs(10, 3, 4, 4)[::2])
    doubling.assert_answers(inputs(4, 5, 3, 4).permute(1, 2, 3, 0))


# A whole plan


def network() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.last = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.stem(x).relu()
            answer: Tensor = self.last((self.conv(y) + y).relu().mean((2, 3)))
            return answer

    torch.manual_seed(0)
    return Residual()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 5, 6, 7, 20])
def test_a_recorded_plan_answers_any_number_of_rows(rows: int, precision: torch.dtype) -> None:
    net, recorder, x = network(), CpuRecorder(), inputs(rows, 3, 6, 6)
    plan = lowered_for_cudnn(net, x[0], precision, max_batch=6, recorder=recorder)
    assert_exact(plan, net, x)
    assert recorder.recorded == [6, 4, 2, 1]


def test_rows_beyond_the_largest_batch_are_replayed_in_parts() -> None:
    net, recorder, x = network(), CpuRecorder(), inputs(15, 3, 6, 6)
    plan = lowered_for_cudnn(net, x[0], max_batch=6, recorder=recorder)
    assert_exact(plan, net, x)
    assert recorder.replayed == [6, 6, 4] * 2


def test_pixels_are_normalised_within_the_recording() -> None:
    pixels, net = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8), network()
    plan = lowered_for_cudnn(net, torch.zeros(3, 6, 6), max_batch=6, recorder=CpuRecorder())
    with torch.no_grad():
        reference = net.double()(pixels.double() / 255)
    assert float((plan(pixels) - reference).abs().max()) < 1e-6


def test_a_row_that_is_no_number_is_left_in_a_bucket_and_reaches_no_other() -> None:
    plan = lowered_for_cudnn(network(), torch.zeros(3, 6, 6), max_batch=4, recorder=CpuRecorder())
    rows = inputs(3, 3, 6, 6)
    expected = plan(rows)
    plan(torch.full((4, 3, 6, 6), torch.nan))
    assert torch.equal(plan(rows), expected)


def test_warming_up_records_the_buckets_for_the_dtype_of_the_row() -> None:
    recorder = CpuRecorder()
    plan = lowered_for_cudnn(network(), torch.zeros(3, 6, 6), max_batch=4, recorder=recorder)
    plan.warm_up(torch.zeros(3, 6, 6, dtype=torch.uint8))
    assert (recorder.recorded, recorder.replayed) == ([4, 2, 1], [4, 2, 1])


def test_two_plans_keep_their_recordings_apart() -> None:
    first, second = network(), nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU())
    x, recorder = inputs(3, 3, 6, 6), CpuRecorder()
    plans = [lowered_for_cudnn(net, x[0], max_batch=4, recorder=recorder) for net in (first, second)]
    for _ in range(2):
        assert_exact(plans[0], first, x)
        assert_exact(plans[1], second, x)
