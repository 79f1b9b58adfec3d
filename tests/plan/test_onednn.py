"""Every fused call against torch's own layers in float64, at several shapes and precisions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.plan import onednn

from .lowered import assert_exact, calls, inputs, lowered, shown

pytestmark = pytest.mark.usefixtures("no_layer_is_small")

PRECISIONS = [torch.float32, torch.bfloat16]
ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "hardtanh(0, 6)": nn.ReLU6(),
    "hardtanh(-0.5, 0.25)": nn.Hardtanh(-0.5, 0.25),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "swish": nn.SiLU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "leaky_relu(0.2)": nn.LeakyReLU(0.2),
    "gelu(none)": nn.GELU(),
    "gelu(tanh)": nn.GELU(approximate="tanh"),
}
torch.manual_seed(0)  # the weights of these are the same in every run
CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "pointwise": (nn.Conv2d(16, 24, 1), (16, 7, 5)),
    "3x3": (nn.Conv2d(3, 8, 3, padding=1), (3, 12, 12)),
    "without bias": (nn.Conv2d(8, 8, 3, bias=False), (8, 9, 9)),
    "strided": (nn.Conv2d(8, 16, (3, 5), stride=(2, 1), padding=(1, 2)), (8, 11, 10)),
    "dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2), (8, 10, 10)),
    "same": (nn.Conv2d(8, 8, (3, 1), padding="same", dilation=2), (8, 9, 9)),
    "valid": (nn.Conv2d(8, 8, 3, padding="valid"), (8, 9, 9)),
    "grouped": (nn.Conv2d(12, 18, 3, padding=1, groups=3), (12, 8, 8)),
    "depthwise": (nn.Conv2d(16, 16, 5, padding=2, groups=16), (16, 9, 9)),
    "depthwise x2": (nn.Conv2d(8, 16, 3, stride=2, groups=8), (8, 9, 9)),
    "one pixel": (nn.Conv2d(32, 8, 1), (32, 1, 1)),
    "one channel": (nn.Conv2d(1, 1, 3, padding=1), (1, 6, 6)),
    "volume": (nn.Conv3d(4, 8, 3, padding=1), (4, 5, 6, 7)),
}
TRANSPOSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "square": (nn.ConvTranspose2d(8, 8, 2, stride=2), (8, 5, 5)),
    "grouped": (nn.ConvTranspose2d(12, 18, 3, stride=2, padding=1, groups=3), (12, 6, 5)),
    "output padding": (nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1), (8, 5, 5)),
    "dilated": (nn.ConvTranspose2d(8, 6, 3, dilation=2, bias=False), (8, 5, 5)),
}
LINEAR: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "rows": (nn.Linear(20, 12), (20,)),
    "tokens": (nn.Linear(20, 12, bias=False), (5, 20)),
}


def backend(precision: torch.dtype) -> str:
    return "onednn" if onednn.is_supported(precision) else "aten"


class Sum(nn.Module):
    """`after(first(x) + second(x))`."""

    def __init__(self, first: nn.Module, second: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.after = first, second, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.after(self.first(x) + self.second(x))
        return total


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("layer", [CONVOLUTIONS["3x3"], TRANSPOSED["grouped"], LINEAR["rows"]], ids=str)
def test_an_activation_rides_inside_the_call_before_it(
    layer: tuple[nn.Module, tuple[int, ...]], name: str, precision: torch.dtype
) -> None:
    net, rows = nn.Sequential(layer[0], ACTIVATIONS[name]), inputs(3, *layer[1])
    plan = lowered(net, rows[0], precision)
    assert_exact(plan, net, rows)
    if backend(precision) == "onednn":
        assert [step.epilogue for step in plan.programs[-1].steps] == [name]


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_every_geometry_of_a_convolution(case: str, rows: int, precision: torch.dtype) -> None:
    layer, shape = CONVOLUTIONS[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(rows, *shape)
    plan = lowered(net, x[0], precision)
    assert_exact(plan, net, x)
    assert {step.backend for step in plan.programs[-1].steps} == {backend(precision)}


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_every_geometry_of_a_transposed_convolution(case: str, rows: int, precision: torch.dtype) -> None:
    layer, shape = TRANSPOSED[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(rows, *shape)
    plan = lowered(net, x[0], precision)
    assert_exact(plan, net, x)
    assert {step.backend for step in plan.programs[-1].steps} == {backend(precision)}


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("case", LINEAR)
def test_linear_layers(case: str, rows: int, precision: torch.dtype) -> None:
    layer, shape = LINEAR[case]
    net, x = nn.Sequential(layer, nn.Hardswish()), inputs(rows, *shape)
    plan = lowered(net, x[0], precision)
    assert_exact(plan, net, x)
    assert {step.backend for step in plan.programs[-1].steps} == {backend(precision)}


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("after", [None, nn.ReLU(), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize(
    "case", ["pointwise", "3x3", "strided", "grouped", "depthwise", "dilated", "one pixel", "volume"]
)
def test_a_sum_and_its_relu_ride_inside_the_later_of_two_convolutions(
    case: str, after: nn.Module | None, rows: int, precision: torch.dtype
) -> None:
    layer, shape = CONVOLUTIONS[case]
    net, x = Sum(nn.Sequential(nn.Tanh(), layer), layer, after), inputs(rows, *shape)
    plan = lowered(net, x[0], precision)
    assert_exact(plan, net, x)
    if backend(precision) == "onednn":
        rides = isinstance(after, nn.ReLU)
        assert shown(plan)[2].endswith(" + add, relu" if rides else " + add")
        assert calls(plan)[2] == "_convolution_pointwise_.binary"


def test_a_sum_with_the_networks_input_leaves_the_input_alone() -> None:
    net, x = Sum(nn.Identity(), nn.Conv2d(4, 4, 1)), inputs(3, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan) == ["_convolution_pointwise.binary"]


def test_a_sum_with_the_convolutions_own_input_is_not_written_there() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), Sum(nn.Conv2d(4, 4, 3, padding=1), nn.Identity()))
    x = inputs(3, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan) == ["_convolution_pointwise.default", "_convolution_pointwise.binary"]


class ReadLater(nn.Module):
    """The sum's other operand, `y`, is read behind the sum: by a call, or by one that fusion moves there."""

    def __init__(self, *, moved: bool) -> None:
        super().__init__()
        self.moved = moved
        self.stem, self.conv, self.head = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        before: Tensor = self.head(y)
        total: Tensor = (self.conv(x) + y).relu()
        return before + total if self.moved else total * self.head(y)


@pytest.mark.parametrize("moved", [True, False])
def test_a_value_that_is_read_later_is_not_overwritten(moved: bool) -> None:
    net, x = ReadLater(moved=moved), inputs(2, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert calls(plan)[1] == "_convolution_pointwise.binary"


class Broadcast(nn.Module):
    """The sum's other operand has one row, or one pixel, for all."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(shape)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = (self.conv(x) + self.pool(x)).relu()
        return total


def test_a_sum_that_broadcasts_stays_as_it_is() -> None:
    net, x = Broadcast((1, 1)), inputs(2, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert shown(plan)[-2:] == ["aten add", "aten relu"]


class TwoReaders(nn.Module):
    """A convolution whose value is read before its activation too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y.relu() + y.tanh()


def test_an_activation_beside_another_reader_stays_on_its_own() -> None:
    net, x = TwoReaders(), inputs(2, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert shown(plan)[0] == "onednn conv2d"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.ConvTranspose2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 4, 3, dilation=2, output_padding=1),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    ],
    ids=str,
)
def test_what_onednn_does_not_compute_stays_right(layer: nn.Module) -> None:
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(2, 4, 6, 6)
    assert_exact(lowered(net, x[0]), net, x)


def test_a_module_that_is_called_twice_keeps_its_weights() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    net, x = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), conv, nn.ReLU()), inputs(2, 4, 5, 5)
    assert_exact(lowered(net.eval(), x[0]), net, x)


def test_without_the_operators_every_call_stays_aten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_supported", lambda precision: False)
    net, x = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), inputs(2, 4, 5, 5)
    plan = lowered(net, x[0])
    assert_exact(plan, net, x)
    assert shown(plan) == ["aten conv2d", "aten relu"]


@pytest.mark.parametrize("precision", [torch.float64, torch.int8, torch.complex64], ids=str)
def test_precisions_that_onednn_has_not(precision: torch.dtype) -> None:
    assert not onednn.is_supported(precision)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_sum_behind_a_transposed_convolution_is_not_lost(is_first: bool, precision: torch.dtype) -> None:
    up, skip = nn.ConvTranspose2d(4, 4, 2, 2), nn.Upsample(scale_factor=2)
    net = Sum(up, skip) if is_first else Sum(skip, up)
    x = inputs(3, 4, 5, 5)
    assert_exact(lowered(net, x[0], precision), net, x)


def test_a_clamp_whose_bounds_cross_is_left_to_aten() -> None:
    class Crossed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(0.5, -0.5)

    net, x = nn.Sequential(nn.Linear(5, 7), Crossed()), inputs(3, 5)
    assert_exact(lowered(net, x[0]), net, x)


def test_a_view_of_what_became_channels_last_is_a_copy() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lin = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y.view_as(self.lin(x.flatten(1)).view(-1, 4, 25)) * torch.view_as_real(
                torch.view_as_complex(y.reshape(-1, 4, 25, 1).expand(-1, 4, 25, 2).contiguous())
            ).sum(-1)

    net, x = Viewed(), inputs(3, 4, 5, 5)
    assert_exact(lowered(net, x[0]), net, x)
