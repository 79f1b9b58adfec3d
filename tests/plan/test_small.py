"""Layers that cost less than the preparation of a fused call: which they are, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from service.graph.capture import capture
from service.graph.linear import LinearCall
from service.plan.small import is_pointwise, is_small, multiply_adds

from .lowered import assert_exact, calls, inputs, lowered


def call_of(layer: nn.Module, *shape: int) -> fx.Node:
    graph = capture(layer, inputs(2, *shape)).module.graph
    calls: list[fx.Node] = [node for node in graph.nodes if LinearCall.is_one(node)]
    return calls[0]


@pytest.mark.parametrize(
    ("layer", "shape", "work"),
    [
        (nn.Conv2d(3, 8, 3), (3, 10, 9), 3 * 8 * 9 * 8 * 7),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (4, 8, 8), 4 * 8 * 9 * 4 * 4),
        (nn.Conv2d(8, 8, 3, groups=8), (8, 5, 5), 8 * 9 * 3 * 3),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 4 * 6 * 4 * 5 * 5),
        (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 2 * 3 * 8 * 27),
        (nn.Linear(20, 10), (20,), 200),
        (nn.Linear(20, 10), (7, 20), 1400),
    ],
    ids=str,
)
def test_the_multiply_adds_of_one_row(layer: nn.Module, shape: tuple[int, ...], work: int) -> None:
    assert multiply_adds(call_of(layer, *shape)) == work


@pytest.mark.parametrize(
    ("layer", "pointwise"),
    [
        (nn.Conv2d(4, 4, 1), True),
        (nn.Conv2d(4, 4, 1, bias=False), True),
        (nn.Conv2d(4, 4, 1, stride=2), False),
        (nn.Conv2d(4, 4, 1, padding=1), False),
        (nn.Conv2d(4, 4, 1, groups=2), False),
        (nn.Conv2d(4, 4, (1, 2)), False),
        (nn.Conv2d(4, 4, 1, padding="same"), False),
    ],
    ids=str,
)
def test_a_pointwise_convolution_is_a_product_over_channels(layer: nn.Module, pointwise: bool) -> None:
    assert is_pointwise(call_of(layer, 4, 6, 6)) == pointwise


@pytest.mark.parametrize(
    ("layer", "shape", "small_for"),
    [
        (nn.Conv2d(480, 20, 1), (480, 1, 1), [1, 8]),
        (nn.Conv2d(64, 64, 1), (64, 14, 14), [1]),
        (nn.Conv2d(24, 144, 1), (24, 56, 56), []),
        (nn.Conv2d(32, 32, 3, padding=1), (32, 8, 8), [1]),
        (nn.Conv2d(128, 128, 3, padding=1), (128, 7, 7), []),
        (nn.Conv2d(64, 64, 3, groups=64), (64, 7, 7), []),
        (nn.Linear(256, 64), (256,), [1, 8]),
        (nn.Linear(2048, 1000), (2048,), [1]),
        (nn.Linear(4096, 4096), (4096,), []),
    ],
    ids=str,
)
def test_which_layers_are_small_for_one_row_and_for_many(
    layer: nn.Module, shape: tuple[int, ...], small_for: list[int]
) -> None:
    call = call_of(layer, *shape)
    assert [rows for rows in (1, 8) if is_small(call, rows)] == small_for


class Gate(nn.Module):
    """A squeeze-excite gate, and a pointwise convolution that is summed."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(6, 4, 1, bias=bias), nn.Conv2d(4, 6, 1, bias=bias)
        self.project = nn.Conv2d(6, 6, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.squeeze(x.mean((2, 3), keepdim=True)).relu()
        gate = nn.functional.hardtanh(self.excite(gate), 0, 1)
        total: Tensor = x + self.project(x * gate)
        return total


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_small_pointwise_convolutions_are_matrix_products(rows: int, bias: bool) -> None:
    net, x = Gate(bias), inputs(rows, 6, 5, 4)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    product = "addmm.default" if bias else "mm.default"
    assert [call for call in calls(plan) if "permute" not in call and "reshape" not in call] == [
        "mean.dim",
        product,
        "relu_.default",
        product,
        "hardtanh_.default",
        "mul.Tensor",
        product,
        "add.Tensor",
    ]
    assert [(step.name, step.op, step.shape) for step in plan.programs[-1].steps[1:4]] == [
        ("squeeze", "conv2d", (4, 1, 1)),
        ("relu", "relu", (4, 1, 1)),
        ("excite", "conv2d", (6, 1, 1)),
    ]
    assert {step.backend for step in plan.programs[-1].steps} == {"aten"}


def test_one_row_and_many_rows_run_different_calls_with_the_same_weights() -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 256, 3), nn.ReLU())
    plan = lowered(net, inputs(16, 16, 16))
    for rows in (1, 2, 8, 9, 17):
        assert_exact(plan, net, inputs(rows, 16, 16, 16))
    assert [step.backend for step in plan.programs[-1].steps] == ["onednn", "onednn"]
    assert [step.backend for step in plan.programs[0].steps] == ["aten", "aten", "onednn"]
    shared = plan.programs[-1].module.get_buffer("_packed_conv2d_1_0")
    assert any(shared is tensor for tensor in plan.programs[0].module.buffers())


def test_without_small_layers_there_is_one_graph() -> None:
    plan = lowered(nn.Conv2d(64, 64, 3), inputs(64, 16, 16))
    assert [program.rows for program in plan.programs] == [1]


def test_in_half_precision_no_layer_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.plan.onednn.is_supported", lambda precision: True)
    monkeypatch.setattr("service.plan.onednn._packed", lambda call, weight, rows: weight)
    monkeypatch.setattr("service.plan.packing._is_alike", torch.equal)
    monkeypatch.setattr("service.plan.plan.interpreted", lambda module: module)
    plan = lowered(nn.Conv2d(4, 4, 1), inputs(4, 3, 3), torch.bfloat16)
    assert [step.backend for step in plan.programs[0].steps] == ["onednn"]
