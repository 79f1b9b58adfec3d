"""What a plan holds, in bytes: every memory once, whatever reads it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.plan import footprint, onednn
from service.plan.preprocessing import Preprocessing

from .lowered import inputs, lowered, lowered_for_cudnn
from .test_recording import CpuRecorder

needs_onednn = pytest.mark.skipif(not onednn.is_supported(torch.float32), reason="there is no oneDNN")
LARGE = 64 * 128 * 9 * 4
"""Bytes of a convolution's weight that is large enough to be packed."""


def large() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, 128, 3), nn.ReLU())


def pixel_pass(channels: int, width: int) -> int:
    """Bytes of the scale and the shift that the pass over the pixels reads: one line of the image each."""
    return 2 * channels * width * 4


def test_views_of_one_memory_count_once_and_count_all_of_it() -> None:
    whole = torch.zeros(10, 10)
    assert footprint.of([whole, whole[0], whole.t()]) == {"weights": 400, "packed": 0}
    assert footprint.of([whole[0], torch.zeros(3, dtype=torch.bfloat16)]) == {"weights": 406, "packed": 0}
    assert footprint.of([]) == {"weights": 0, "packed": 0}


@needs_onednn
@pytest.mark.parametrize(("channels", "least"), [(32, 32 * 9 * 32 * 4), (30, 30 * 9 * 30 * 4)])
def test_packed_weights_count_with_what_they_are_padded_by(channels: int, least: int) -> None:
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    weight = inputs(channels, channels, 3, 3)
    packed: Tensor = reorder(weight, [1, 1], [1, 1], [1, 1], 1, [1, channels, 28, 28])
    counted = footprint.of([packed, packed])
    assert counted["weights"] == 0
    assert least <= counted["packed"] <= 1.2 * least
    assert (counted["packed"] == least) == (channels == 32)


@needs_onednn
def test_with_a_torch_that_does_not_say_the_numbers_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_packed_bytes", None)
    assert lowered(large(), inputs(64, 28, 28), max_batch=1).memory["packed"] == 2 * LARGE


@needs_onednn
def test_a_plan_holds_a_packed_convolution_once_and_its_bias_plain() -> None:
    plan = lowered(large(), inputs(64, 28, 28), max_batch=1)
    # Pixels enter through a first layer of their own: a mean of 0 is exact at a border.
    assert plan.preprocessing == "first layers"
    entry = 128 * 4
    assert plan.memory == {
        "weights": 128 * 4 + entry + pixel_pass(64, 28),
        "packed": 2 * LARGE,
        "graphs": 0,
    }


@needs_onednn
def test_programs_that_share_a_layout_count_it_once() -> None:
    plan = lowered(large(), inputs(64, 28, 28), max_batch=8)
    held = {id(tensor): tensor for run in plan.programs for tensor in run.module.buffers()}
    packed = [tensor for tensor in held.values() if tensor.is_mkldnn]
    assert len(packed) <= len(plan.programs)
    entries = {id(t): t for run in plan.programs if run.for_pixels for t in run.for_pixels.buffers()}
    own = [tensor for tensor in entries.values() if tensor.is_mkldnn and id(tensor) not in held]
    assert plan.memory["packed"] == LARGE * (len(packed) + len(own))


@needs_onednn
def test_what_only_the_program_for_more_rows_reads_counts_too() -> None:
    """These layers are too small for a fused call in one row, and no longer in two."""
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    plan = lowered(net, inputs(16, 14, 14))
    assert [program.rows for program in plan.programs][:2] == [1, 2]
    layers = 3  # two, and the first as pixels enter it
    weight, bias = 16 * 16 * 9 * 4, 16 * 4
    assert plan.memory["weights"] == layers * (weight + bias) + pixel_pass(16, 14)
    assert plan.memory["packed"] >= layers * weight


@pytest.mark.parametrize(("precision", "size"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
def test_a_plan_without_packing_holds_the_numbers_of_the_network(precision: torch.dtype, size: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    plan = lowered_for_cudnn(net, inputs(3, 8, 8), precision)
    numbers = sum(parameter.numel() for parameter in net.parameters())
    assert plan.memory == {"weights": numbers * size + pixel_pass(3, 8), "packed": 0, "graphs": 0}


def test_pixels_that_cannot_enter_a_first_layer_add_only_the_pass() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    shifted = Preprocessing([0.5] * 3, [0.5] * 3)
    plans = [lowered(net, inputs(3, 8, 8), preprocessing=each) for each in (shifted, None)]
    assert [plan.preprocessing for plan in plans] == ["one pass", "first layers"]
    one_pass, first_layers = (sum(plan.memory.values()) for plan in plans)
    assert one_pass < first_layers


def test_the_pool_of_recordings_is_shown_once_they_are_made() -> None:
    plan = lowered_for_cudnn(large(), inputs(64, 8, 8), max_batch=2, recorder=CpuRecorder())
    assert plan.memory["graphs"] == 0
    plan(inputs(1, 64, 8, 8))
    assert plan.memory["graphs"] == 2000
