"""Packed weights: one tensor for each call and layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.plan import onednn, packing
from service.plan.packing import Packing

from .lowered import assert_exact, inputs, lowered

pytestmark = pytest.mark.skipif(not onednn.is_supported(torch.float32), reason="there is no oneDNN")
WEIGHT = inputs(32, 32, 3, 3)


def packed(weight: Tensor = WEIGHT, rows: int = 1, side: int = 28) -> Tensor:
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    answer: Tensor = reorder(weight, [1, 1], [1, 1], [1, 1], 1, [rows, 32, side, side])
    return answer


def test_a_call_that_wants_the_same_layout_again_shares_the_tensor() -> None:
    kept, first = Packing(), packed()
    assert kept.keep("conv", first) == ("_packed_conv_0", first)
    assert kept.keep("conv", packed())[1] is first


def test_another_layout_is_a_tensor_of_its_own_under_a_name_of_its_own() -> None:
    kept, first, wider = Packing(), packed(), packed(WEIGHT.repeat(2, 1, 1, 1))
    kept.keep("conv", first)
    assert kept.keep("conv", wider) == ("_packed_conv_1", wider)
    assert kept.keep("conv", packed())[0] == "_packed_conv_0"


def test_two_calls_never_share() -> None:
    kept, one, other = Packing(), packed(), packed()
    kept.keep("one", one)
    assert kept.keep("other", other) == ("_packed_other_0", other)


def test_where_layouts_cannot_be_told_apart_the_first_one_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_layout", None)
    net = nn.Sequential(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 64, 1))
    plan = lowered(net, inputs(64, 28, 28))
    for rows in (1, 2, 4, 8, 9):
        assert_exact(plan, net, inputs(rows, 64, 28, 28))
    assert len({id(tensor) for program in plan.programs for tensor in program.module.buffers()}) == 4


@pytest.mark.usefixtures("two_threads")
def test_every_size_of_batch_is_right_with_more_threads_too() -> None:
    net = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 1))
    plan = lowered(net, inputs(64, 28, 28), max_batch=20)
    for rows in (1, 2, 3, 4, 7, 8, 20, 21):
        assert_exact(plan, net, inputs(rows, 64, 28, 28))
    assert plan.threads == 2
