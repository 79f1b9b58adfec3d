"""The record of what runs how, and activations that several calls spell out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.parity import Reference, prove
from service.network import catalog
from service.network.random_stats import randomise
from service.plan.lowering import Step
from service.plan.plan import Plan, lower
from service.plan.preprocessing import Preprocessing

from .lowered import assert_exact, inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable


class Spelled(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("function", "epilogue"),
    [
        (lambda x: x * x.sigmoid(), "swish"),
        (lambda x: x.sigmoid() * x, "swish"),
        (lambda x: x * F.hardsigmoid(x), "hardswish"),
        (lambda x: x * (F.relu6(x + 3) / 6), "hardswish"),
        (lambda x: F.hardtanh(x + 3, 0, 6) / 6 * x, "hardswish"),
        (lambda x: x.clamp(min=0), "relu"),
        (lambda x: x.clamp(0, 6), "hardtanh(0, 6)"),
        (lambda x: x.clamp_min(0), "relu"),
    ],
)
def test_spelled_out_activations_ride_inside_the_convolution(
    function: Callable[[Tensor], Tensor], epilogue: str
) -> None:
    net, x = Spelled(function), inputs(2, 4, 6, 6) * 4
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert [step.epilogue for step in plan.programs[-1].steps] == [epilogue]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (2 * x).sigmoid(),
        lambda x: x * (F.relu6(x + 2) / 6),
        lambda x: x * (F.relu6(x + 3) / 5),
        lambda x: x * (F.relu(x + 3) / 6),
        lambda x: x.clamp(min=0.5),
        lambda x: x.clamp(max=1),
        lambda x: x * x,
    ],
)
def test_what_only_looks_like_an_activation_stays_as_it_is(function: Callable[[Tensor], Tensor]) -> None:
    net, x = Spelled(function), inputs(2, 4, 6, 6) * 4
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert plan.programs[-1].steps[0].epilogue == ""


def folded_plan(name: str, side: int, precision: torch.dtype) -> tuple[Plan, bool]:
    """An architecture of the catalog as a plan, and whether parity holds."""
    torch.manual_seed(0)
    net = catalog.build(name, {})
    randomise(net, 0)
    row = [1, 8, 8] if name == "digits" else [3, side, side]
    reference = Reference.of(capture(net, torch.zeros(2, *row)))
    plan = lower(
        fold_graph(reference).module,
        Preprocessing([0.0] * row[0], [1.0] * row[0]),
        precision=precision,
        device=torch.device("cpu"),
        max_batch=4,
    )
    return plan, prove(reference, plan, precision, plan.buckets()).holds


@pytest.mark.usefixtures("no_layer_is_small")
def test_the_record_names_modules_epilogues_shapes_and_backends() -> None:
    plan, _ = folded_plan("resnet18", 64, torch.float32)
    assert plan.programs[-1].steps[:4] == (
        Step("conv1", "conv2d", "relu", (64, 32, 32), "onednn"),
        Step("maxpool", "max_pool2d", "", (64, 16, 16), "aten"),
        Step("layer1.0.conv1", "conv2d", "relu", (64, 16, 16), "onednn"),
        Step("layer1.0.conv2", "conv2d", "add, relu", (64, 16, 16), "onednn"),
    )
    assert plan.programs[-1].steps[-1] == Step("fc", "linear", "", (1000,), "onednn")
    assert (
        len(plan.programs[-1].steps) == 20 + 3
    )  # a pool, a mean and the classifier; nothing else is left on its own


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("mobilenet_v2", {"mean"}),
        ("mobilenet_v3_small", {"mean", "mul"}),
        ("efficientnet_b0", {"mean", "mul"}),
        ("densenet121", {"mean", "cat", "maximum", "max_pool2d", "avg_pool2d"}),
        ("vgg11_bn", {"max_pool2d", "permute", "flatten", "adaptive_avg_pool2d"}),
    ],
)
@pytest.mark.usefixtures("no_layer_is_small")
def test_only_what_onednn_has_no_epilogue_for_is_left_to_aten(name: str, left: set[str]) -> None:
    plan, holds = folded_plan(name, 64, torch.float32)
    assert {step.op for step in plan.programs[-1].steps if step.backend == "aten"} == left
    assert holds


SMALL = ["densenet121", "digits", "mobilenet_v3_small", "resnet18", "resnext50_32x4d"]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_parity_holds_for_the_lowered_plan(name: str, precision: torch.dtype) -> None:
    assert folded_plan(name, 32, precision)[1]


def test_a_plan_copies_and_reorders_nothing_between_its_steps() -> None:
    plan, _ = folded_plan("resnet18", 64, torch.float32)
    rows = inputs(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.profiler.profile(record_shapes=True) as profile:
        plan.programs[-1].module(rows)
    moving = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::to_dense", "aten::to_mkldnn"}
    moved = [e.name for e in profile.events() if e.name in moving and len(e.input_shapes[0]) == 4]
    assert moved == []


def test_a_hard_swish_whose_three_is_scaled_is_not_one() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.nn.functional.relu6(torch.add(x, 3, alpha=2)) / 6)

    net, x = nn.Sequential(nn.Conv2d(4, 4, 1), Scaled()), inputs(2, 4, 6, 6) * 4
    assert_exact(lowered(net, x[0]), net, x)
