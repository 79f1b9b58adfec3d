"""Whole networks as plans: what runs how on a CPU and, without one, on a CUDA device, and how exactly.

A test that asks for a network is run beside all others that ask for the same: to capture one takes longer
than all that is done with it here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.graph.stored_tensors import stored_tensors
from service.network import catalog
from service.network.random_stats import randomise
from service.plan.lowering import Step
from service.plan.plan import Plan, lower
from service.plan.preprocessing import Preprocessing

from .lowered import CPU, biases, fused_for_cudnn, inputs, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

SIDE = 32
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]
LEFT_TO_ATEN = {
    "densenet121": {"mean", "cat", "maximum", "max_pool2d", "avg_pool2d"},
    "efficientnet_b0": {"mean", "mul"},
    "mobilenet_v2": {"mean"},
    "mobilenet_v3_small": {"mean", "mul"},
    "vgg11_bn": {"max_pool2d", "permute", "flatten", "adaptive_avg_pool2d"},
}
CUDNN_CONVOLUTIONS = {
    "densenet121": {"cudnn conv2d + relu": 59, "aten conv2d": 61},
    "mobilenet_v2": {"cudnn conv2d + relu": 18, "aten conv2d": 34},
    "resnet18": {"cudnn conv2d + relu": 9, "cudnn conv2d + add, relu": 8, "aten conv2d": 3},
    "resnet50": {"cudnn conv2d + relu": 33, "cudnn conv2d + add, relu": 16, "aten conv2d": 4},
    "resnext50_32x4d": {"cudnn conv2d + relu": 17, "cudnn conv2d + add, relu": 16, "aten conv2d": 20},
    "vgg11_bn": {"cudnn conv2d + relu": 8},
}


@dataclass(frozen=True)
class Folded:
    """An architecture of the catalog with random weights and statistics."""

    name: str
    reference: Reference
    module: fx.GraphModule

    @property
    def row(self) -> list[int]:
        return list(self.reference.rows.shape[1:])

    def lowered(self, precision: torch.dtype = torch.float32) -> Plan:
        """As a CPU runs it."""
        channels = self.row[0]
        return lower(
            self.module,
            Preprocessing([0.0] * channels, [1.0] * channels),
            precision=precision,
            device=CPU,
            max_batch=4,
        )

    def on_meta(self) -> Plan:
        """As a CUDA device runs it, on one that holds shapes and no values."""
        return fused_for_cudnn(self.module, self.row[0], torch.float16, torch.device("meta"))


@pytest.fixture(scope="module")
def folded(request: pytest.FixtureRequest) -> Folded:
    torch.manual_seed(0)
    net = catalog.build(request.param, {})
    if request.param == "vgg11_bn":  # the usual head is nearly all of its weights, and says nothing here
        net.classifier = nn.Linear(512 * 7 * 7, 10)
    randomise(net, 0)
    row = [1, 8, 8] if request.param == "digits" else [3, SIDE, SIDE]
    reference = Reference.of(capture(net, torch.zeros(2, *row)))
    return Folded(request.param, reference, fold_graph(reference).module)


def of(*names: str) -> Callable[[Any], Any]:
    """Run the test on each of these architectures."""
    return pytest.mark.parametrize("folded", names, indirect=True)


# On a CPU


@of("resnet18")
@pytest.mark.usefixtures("no_layer_is_small")
def test_the_record_names_modules_epilogues_shapes_and_backends(folded: Folded) -> None:
    plan = folded.lowered()
    assert plan.programs[-1].steps[:4] == (
        Step("conv1", "conv2d", "relu", (64, 16, 16), "onednn"),
        Step("maxpool", "max_pool2d", "", (64, 8, 8), "aten"),
        Step("layer1.0.conv1", "conv2d", "relu", (64, 8, 8), "onednn"),
        Step("layer1.0.conv2", "conv2d", "add, relu", (64, 8, 8), "onednn"),
    )
    assert plan.programs[-1].steps[-1] == Step("fc", "linear", "", (1000,), "onednn")
    assert (
        len(plan.programs[-1].steps) == 20 + 3
    )  # a pool, a mean and the classifier; nothing else is left on its own


@of(*LEFT_TO_ATEN)
@pytest.mark.usefixtures("no_layer_is_small")
def test_only_what_onednn_has_no_epilogue_for_is_left_to_aten(folded: Folded) -> None:
    plan = folded.lowered()
    aten = {step.op for step in plan.programs[-1].steps if step.backend == "aten"}
    assert aten == LEFT_TO_ATEN[folded.name]
    assert folded.reference.expected(torch.float32).prove(plan, plan.buckets()).holds


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@of("densenet121", "digits", "mobilenet_v3_small", "resnet18", "resnext50_32x4d")
def test_parity_holds_for_the_lowered_plan(folded: Folded, precision: torch.dtype) -> None:
    plan = folded.lowered(precision)
    assert folded.reference.expected(precision).prove(plan, plan.buckets()).holds


@of("resnet18")
def test_a_plan_copies_and_reorders_nothing_between_its_steps(folded: Folded) -> None:
    plan, rows = folded.lowered(), inputs(2, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        plan.programs[-1].module(rows)
    moving = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::to_dense", "aten::to_mkldnn"}
    moved = [e.name for e in profile.events() if e.name in moving and len(e.input_shapes[0]) == 4]
    assert moved == []


# On a CUDA device


@of(*CUDNN_CONVOLUTIONS)
def test_how_many_convolutions_of_a_network_cudnn_computes_with_what_follows(folded: Folded) -> None:
    counted = Counter(line for line in shown(folded.on_meta()) if "conv2d" in line)
    assert counted == CUDNN_CONVOLUTIONS[folded.name]


@of("densenet121", "efficientnet_b0", "mobilenet_v2", "resnet50")
def test_a_lowered_network_needs_nothing_from_another_device_and_fits_every_schema(folded: Folded) -> None:
    plan = folded.on_meta()
    module = plan.programs[-1].module
    assert {tensor.device.type for tensor in stored_tensors(module).values()} == {"meta"}
    for dtype in (torch.uint8, torch.float32):
        answer = plan._compute(torch.empty(5, 3, SIDE, SIDE, dtype=dtype, device="meta"))
        assert (answer.shape, answer.dtype, answer.device.type) == ((5, 1000), torch.float32, "meta")


@of("resnet50")
def test_of_a_resnets_convolutions_only_the_four_that_are_summands_are_left_and_have_no_bias(
    folded: Folded,
) -> None:
    plan = folded.on_meta()
    left = [step.name for step in plan.programs[-1].steps if (step.backend, step.op) == ("aten", "conv2d")]
    assert left == [f"layer{stage}.0.conv3" for stage in (1, 2, 3, 4)]
    assert biases(plan).count(False) == 4


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@of("densenet121", "mobilenet_v2", "resnet18", "resnext50_32x4d")
def test_parity_holds_for_the_lowered_network(folded: Folded, precision: torch.dtype) -> None:
    plan = fused_for_cudnn(folded.module, 3, precision)
    assert folded.reference.expected(precision).prove(plan, [4, 1]).holds


@of("resnet18")
def test_lowering_leaves_the_folded_graph_as_it_was(folded: Folded) -> None:
    graph = str(folded.module.graph)
    values = {name: value.clone() for name, value in folded.module.state_dict().items()}
    fused_for_cudnn(folded.module, 3, torch.float32)
    assert str(folded.module.graph) == graph
    assert all(torch.equal(value, values[name]) for name, value in folded.module.state_dict().items())
