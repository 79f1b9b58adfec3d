"""What the tests of the plan share: a network lowered, and its answers in float64 by torch's own layers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.graph.shapes import shape_of
from service.plan import aten
from service.plan.packing import Packing
from service.plan.plan import Plan, lower
from service.plan.preprocessing import PixelPass, Preprocessing
from service.plan.program import fuse

if TYPE_CHECKING:
    from torch import fx

    from service.plan.recording import Recorder

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}
CPU = torch.device("cpu")


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def lowered(
    net: nn.Module,
    row: Tensor,
    precision: torch.dtype = torch.float32,
    max_batch: int = 8,
    preprocessing: Preprocessing | None = None,
) -> Plan:
    channels = row.shape[0]
    return lower(
        fold_graph(Reference.of(capture(net, torch.stack([row, row]))), precision).module,
        preprocessing or Preprocessing([0.0] * channels, [1.0] * channels),
        precision=precision,
        device=torch.device("cpu"),
        max_batch=max_batch,
    )


def lowered_for_cudnn(
    net: nn.Module,
    row: Tensor,
    precision: torch.dtype = torch.float32,
    max_batch: int = 8,
    recorder: Recorder | None = None,
) -> Plan:
    """The plan that a CUDA device gets, where there is none: `cudnn_operators` computes its calls."""
    folded = fold_graph(Reference.of(capture(net, torch.stack([row, row]))), precision).module
    return fused_for_cudnn(folded, row.shape[0], precision, CPU, max_batch, recorder)


def fused_for_cudnn(
    folded: fx.GraphModule,
    channels: int,
    precision: torch.dtype,
    device: torch.device = CPU,
    max_batch: int = 8,
    recorder: Recorder | None = None,
) -> Plan:
    """The same of a network that is folded already."""
    program = fuse(aten.lower(folded, precision, device), Packing(), "cudnn", precision)
    (given,) = folded.graph.find_nodes(op="placeholder")
    preprocessing = Preprocessing([0.0] * channels, [1.0] * channels)
    return Plan(
        [program],
        PixelPass(preprocessing, shape_of(given)[1:], device),
        precision=precision,
        device=device,
        max_batch=max_batch,
        recorder=recorder,
    )


def shown(plan: Plan) -> list[str]:
    """The steps in the order of computation: backend, operation, epilogue."""
    return [
        f"{step.backend} {step.op}" + f" + {step.epilogue}" * bool(step.epilogue)
        for step in plan.programs[-1].steps
    ]


def calls(plan: Plan) -> list[str]:
    """The names of the operators that are called."""
    nodes = plan.programs[-1].module.graph.nodes
    return [str(node.target).partition(".")[2] for node in nodes if node.op == "call_function"]


def biases(plan: Plan) -> list[bool]:
    """Whether each convolution has a bias, in the order of computation."""
    nodes = plan.programs[-1].module.graph.nodes
    found = [n for n in nodes if n.op == "call_function" and "conv" in str(n.target)]
    return [n.args[4 if "add_relu" in str(n.target) else 2] is not None for n in found]


@torch.no_grad()
def assert_exact(plan: Plan, net: nn.Module, rows: Tensor, tolerance: float | None = None) -> None:
    """The plan's answers are those of the unfolded layers in float64, and a second call's too."""
    reference: Tensor = copy.deepcopy(net).eval().double()(rows.double())
    before = rows.clone()
    for _ in range(2):
        answer = plan(rows)
        assert (answer.shape, answer.dtype) == (reference.shape, torch.float32)
        largest = float(reference.abs().max()) or 1.0  # behind a ReLU everything may be 0
        error = float((answer - reference).abs().max()) / largest
        assert error <= (tolerance or TOLERANCES[plan.precision])
    assert torch.equal(rows, before)
