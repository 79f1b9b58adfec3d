"""Linear layers behind flattened images: no copy between them, whatever the flattening is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from .lowered import assert_exact, inputs, lowered, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.plan.plan import Plan


class Headed(nn.Module):
    """A convolution, a flattening and a linear layer."""

    def __init__(
        self, flatten: Callable[[Tensor], Tensor], columns: int = 6 * 5 * 4, kernel: int = 1
    ) -> None:
        super().__init__()
        self.conv, self.flatten = nn.Conv2d(3, 6, kernel), flatten
        self.head = nn.Linear(columns, 7)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.flatten(self.conv(x)))
        return answer


class Shared(Headed):
    """The flattened value, and the weight, are read by somebody else too."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.flatten(self.conv(x))
        answer: Tensor = self.head(flat) + self.head(flat.flip(1)) + flat.sum(1, keepdim=True)
        return answer


def copies(plan: Plan, rows: Tensor) -> list[str]:
    """What is copied between the calls of the plan."""
    given = rows.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.profiler.profile(acc_events=True) as profile:
        plan.programs[-1].module(given)
    return [event.name for event in profile.events() if event.name in ("aten::copy_", "aten::clone")]


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(x.shape[0], 6 * 5 * 4),
    ],
    ids=["flatten", "reshape", "view"],
)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("no_layer_is_small")  # a small product copies its bias
def test_flattened_images_are_read_where_they_lie(
    flatten: Callable[[Tensor], Tensor], precision: torch.dtype
) -> None:
    net, x = Headed(flatten), inputs(3, 3, 5, 4)
    plan = lowered(net, x[0], precision)
    assert_exact(plan, net, x)
    if precision == torch.float32:
        assert copies(plan, x) == []


def test_who_else_reads_the_flattened_value_or_the_weight_gets_what_it_got_before() -> None:
    net, x = Shared(lambda x: x.flatten(1)), inputs(3, 3, 5, 4)
    assert_exact(lowered(net, x[0]), net, x)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Headed(lambda x: x.flatten(1), 6, kernel=5), (3, 3, 5, 5)),
        (Headed(lambda x: x.transpose(2, 3).flatten(1)), (3, 3, 5, 4)),
        (Headed(lambda x: x.flatten(2), 5 * 4), (3, 3, 5, 4)),
        (Headed(lambda x: x, 4), (3, 3, 5, 4)),
    ],
    ids=["one pixel", "turned already", "per channel", "not at all"],
)
def test_what_is_no_flattening_of_images_stays_as_it_is(net: nn.Module, shape: tuple[int, ...]) -> None:
    x = inputs(*shape)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert "aten permute" not in shown(plan)


def test_volumes_are_read_where_they_lie_too() -> None:
    net = nn.Sequential(nn.Conv3d(2, 4, 1), nn.Flatten(), nn.Linear(4 * 2 * 3 * 4, 5))
    x = inputs(3, 2, 2, 3, 4)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert "aten permute" in shown(plan)
