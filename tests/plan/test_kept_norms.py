"""Norms that are kept: one call with their activation where that is faster, two where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.plan import aten, kept_norms
from service.plan.packing import Packing

from .lowered import assert_exact, inputs, lowered, shown


class Kept(nn.Module):
    """A norm of the input, which it cannot go into, and an activation that it cannot pass."""

    def __init__(self, activation: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.activation = norm.eval(), activation
        generator = torch.Generator().manual_seed(0)
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2, generator=generator) if "var" in name else tensor.normal_(
                    generator=generator
                )

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.norm(x))
        return activated


class Gated(Kept):
    """The norm is read behind the activation too."""

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        gated: Tensor = self.activation(normed) + F.softplus(normed)
        return gated


LARGE, SMALL = (64, 56, 57), (64, 28, 28)


def norm_steps(net: nn.Module, row: tuple[int, ...]) -> list[str]:
    x = inputs(3, *row)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    return [step for step in shown(plan) if "addcmul" in step]


@pytest.mark.parametrize(
    ("activation", "epilogue"),
    [(nn.SiLU(), "swish"), (nn.GELU(), "gelu(none)"), (nn.GELU("tanh"), "gelu(tanh)")],
    ids=str,
)
def test_a_large_kept_norm_and_its_costly_activation_are_one_call(
    activation: nn.Module, epilogue: str
) -> None:
    assert norm_steps(Kept(activation, nn.BatchNorm2d(64)), LARGE) == [f"onednn addcmul + {epilogue}"]


@pytest.mark.parametrize("activation", [nn.Hardswish(), nn.Sigmoid(), nn.ELU()], ids=str)
def test_behind_another_activation_two_calls_are_not_slower(activation: nn.Module) -> None:
    assert norm_steps(Kept(activation, nn.BatchNorm2d(64)), LARGE) == ["aten addcmul"]


@pytest.mark.parametrize(
    ("net", "row"),
    [
        (Kept(nn.SiLU(), nn.BatchNorm2d(64)), SMALL),
        (Kept(nn.SiLU(), nn.BatchNorm3d(64)), (64, 15, 16, 17)),
        (Gated(nn.SiLU(), nn.BatchNorm2d(64)), LARGE),
    ],
    ids=["small", "volume", "read twice"],
)
def test_what_one_call_was_not_measured_for_stays_two(net: nn.Module, row: tuple[int, ...]) -> None:
    assert norm_steps(net, row) == ["aten addcmul"]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_half_precisions_stay_two_calls(precision: torch.dtype) -> None:
    net = Kept(nn.SiLU(), nn.BatchNorm2d(64))
    folded = fold_graph(Reference.of(capture(net, inputs(2, *LARGE)))).module
    assert kept_norms.lower(aten.lower(folded, precision, torch.device("cpu")), 1, Packing()) == {}
