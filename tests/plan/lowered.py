"""What the tests of the plan share: a network lowered, and its answers in float64 by torch's own layers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.parity import Reference
from service.plan.plan import Plan, lower
from service.plan.preprocessing import Preprocessing

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def lowered(
    net: nn.Module,
    row: Tensor,
    precision: torch.dtype = torch.float32,
    max_batch: int = 8,
    preprocessing: Preprocessing | None = None,
    least_work: int = 0,
) -> Plan:
    channels = row.shape[0]
    return lower(
        fold_graph(Reference.of(capture(net, torch.stack([row, row]))), precision).module,
        preprocessing or Preprocessing([0.0] * channels, [1.0] * channels),
        precision=precision,
        device=torch.device("cpu"),
        max_batch=max_batch,
        least_work=least_work,
    )


def shown(plan: Plan) -> list[str]:
    """The steps in the order of computation: backend, operation, epilogue."""
    return [f"{step.backend} {step.op}" + f" + {step.epilogue}" * bool(step.epilogue) for step in plan.steps]


def calls(plan: Plan) -> list[str]:
    """The names of the operators that are called."""
    nodes = plan._lowered.graph.nodes
    return [str(node.target).partition(".")[2] for node in nodes if node.op == "call_function"]


@torch.no_grad()
def assert_exact(plan: Plan, net: nn.Module, rows: Tensor) -> None:
    """The plan's answers are those of the unfolded layers in float64, and a second call's too."""
    reference: Tensor = copy.deepcopy(net).eval().double()(rows.double())
    before = rows.clone()
    for _ in range(2):
        answer = plan(rows)
        assert (answer.shape, answer.dtype) == (reference.shape, torch.float32)
        error = float((answer - reference).abs().max() / reference.abs().max())
        assert error <= TOLERANCES[plan.precision]
    assert torch.equal(rows, before)
