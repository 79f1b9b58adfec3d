"""Pixels that enter a plan: normalised in one pass, or in the first layers where that is exact."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from service.plan.preprocessing import PixelPass, Preprocessing

from .lowered import TOLERANCES, inputs, lowered

if TYPE_CHECKING:
    from service.plan.plan import Plan

SHIFTED = Preprocessing([0.4, 0.5, 0.6, 0.1], [0.2, 0.25, 0.3, 0.5])
SCALED = Preprocessing([0.0] * 4, [0.2, 0.25, 0.3, 0.5])


class Sum(nn.Module):
    """`first(x) + second(x)`, both activated: two calls that read the pixels."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.first(x).relu() + self.second(x).sigmoid()
        return total


class Twice(nn.Module):
    """One layer called on the pixels and again on its own answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        again: Tensor = self.conv(self.conv(x).relu())
        return again


INTO_LAYERS: dict[str, tuple[nn.Module, Preprocessing]] = {
    "without padding": (nn.Conv2d(4, 6, 3), SHIFTED),
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), SHIFTED),
    "grouped": (nn.Conv2d(4, 6, 3, stride=2, groups=2), SHIFTED),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), SHIFTED),
    "padding, no mean": (nn.Conv2d(4, 6, 3, padding=1), SCALED),
    "transposed, no mean": (nn.ConvTranspose2d(4, 6, 3, stride=2), SCALED),
    "two readers": (Sum(nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1, bias=False)), SHIFTED),
    "called again": (Twice(), SHIFTED),
    "layers behind": (nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)), SHIFTED),
}
ONE_PASS: dict[str, tuple[nn.Module, Preprocessing]] = {
    "padding": (nn.Conv2d(4, 6, 3, padding=1), SHIFTED),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), SHIFTED),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), SHIFTED),
    "one of two pads": (Sum(nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)), SHIFTED),
    "no layer": (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 1)), SHIFTED),
    "another reader": (Sum(nn.Conv2d(4, 4, 1), nn.Identity()), SHIFTED),
    "columns": (nn.Linear(7, 5), SHIFTED),
}


def pixels(rows: int) -> Tensor:
    """Every value there is among them."""
    shuffled = torch.randperm(rows * 4 * 9 * 7, generator=torch.Generator().manual_seed(rows))
    return (shuffled % 256).to(torch.uint8).reshape(rows, 4, 9, 7)


def exactly_normalised(x: Tensor, by: Preprocessing) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(4, 1, 1) for values in (by.mean, by.std))
    return (x.double() / 255 - mean) / std


@torch.no_grad()
def assert_pixels_exact(plan: Plan, net: nn.Module, by: Preprocessing) -> None:
    """Pixels, and the network inputs that they stand for, are answered as the layers do in float64."""
    for rows in (1, 3):
        network_inputs = exactly_normalised(pixels(rows), by)
        reference: Tensor = copy.deepcopy(net).eval().double()(network_inputs)
        for answer in (plan(pixels(rows)), plan(network_inputs.float())):
            assert (answer.shape, answer.dtype) == (reference.shape, torch.float32)
            assert (
                float((answer - reference).abs().max() / reference.abs().max()) <= TOLERANCES[plan.precision]
            )


@pytest.mark.parametrize("is_small", [False, True], ids=["onednn", "aten"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", INTO_LAYERS)
def test_the_first_layers_take_the_map_where_that_is_exact(
    case: str, precision: torch.dtype, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.plan.onednn.is_small", lambda call, rows: is_small)
    net, by = INTO_LAYERS[case]
    plan = lowered(net, inputs(4, 9, 7), precision, preprocessing=by)
    assert plan.preprocessing == "first layers"
    assert_pixels_exact(plan, net, by)


@pytest.mark.parametrize("case", ONE_PASS)
def test_pixels_take_a_pass_of_their_own_where_it_is_not(case: str) -> None:
    net, by = ONE_PASS[case]
    plan = lowered(net, inputs(4, 9, 7), preprocessing=by)
    assert plan.preprocessing == "one pass"
    assert_pixels_exact(plan, net, by)


def test_float16_takes_the_pass_because_its_weights_would_be_denormal() -> None:
    net, by = INTO_LAYERS["without padding"]
    assert lowered(net, inputs(4, 9, 7), torch.float16, preprocessing=by).preprocessing == "one pass"


@pytest.mark.usefixtures("no_layer_is_small")
def test_the_two_entries_share_every_tensor_but_those_of_the_first_layers() -> None:
    net, by = INTO_LAYERS["layers behind"]
    plan = lowered(net, inputs(4, 9, 7), preprocessing=by)
    entered, lone = plan.programs[-1].for_pixels, plan.programs[-1].module
    assert entered is not None
    stored = dict(lone.named_buffers())
    own = [name for name, tensor in entered.named_buffers() if tensor is not stored[name]]
    assert (len(stored), len(own)) == (4, 2)


@pytest.mark.parametrize("row", [(1, 8, 8), (3, 5, 6), (4, 1, 1), (2, 6, 1)], ids=str)
def test_the_pass_is_right_to_the_last_bits_of_float32_and_channels_last(row: tuple[int, ...]) -> None:
    by = Preprocessing([0.485, 0.456, 0.406, 0.5][: row[0]], [0.229, 0.224, 0.225, 0.25][: row[0]])
    given = pixels(8).flatten()[: 2 * row[0] * row[1] * row[2]].reshape(2, *row)
    given = given.contiguous(memory_format=torch.channels_last)
    before, normalised = given.clone(), PixelPass(by, row, torch.device("cpu"))(given)
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1) for values in (by.mean, by.std))
    reference = (given.double() / 255 - mean) / std
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert float((normalised - reference).abs().max()) < 1e-6
    assert float((by.normalised(given) - reference).abs().max()) < 2e-7
    assert torch.equal(given, before)
