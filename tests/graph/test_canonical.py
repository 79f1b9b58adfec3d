"""One spelling for what networks write in several ways; what only looks alike stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph import fold
from service.graph.capture import capture
from service.graph.surgery import Surgery

from .networks import Net, judged, normal, positive, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph.report import NormOutcome

aten = torch.ops.aten

ROW = (4, 6, 6)
MIXED = torch.tensor([1.5, -0.7, 0.0, 2.0])


def conv(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **{"padding": kernel // 2, **options})


def targets(net: nn.Module, *row: int) -> list[Any]:
    """What the graph calls in canonical form."""
    graph = Surgery(capture(net, normal(2, *row))).graph
    return [node.target for node in graph.nodes if node.op == "call_function"]


def left(net: nn.Module, *row: int) -> list[Any]:
    """What the folded graph calls."""
    graph = fold(net, normal(2, *row)).module.graph
    return [node.target for node in graph.nodes if node.op == "call_function"]


def only(net: nn.Module, *row: int) -> NormOutcome:
    (layer,) = judged(net, *row).layers
    return layer


# Products with a constant matrix.


PRODUCTS: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...]]] = {
    "@": (lambda net, x: x @ net.w, (4,)),
    "matmul of tokens": (lambda net, x: torch.matmul(x, net.w), (7, 4)),
    "matmul of rank 4": (lambda net, x: torch.matmul(x, net.w), (3, 7, 4)),
    "transposed": (lambda net, x: x @ net.wt.t(), (4,)),
    "computed": (lambda net, x: x @ (net.w / net.w.norm()), (4,)),
    "mm": (lambda net, x: aten.mm.default(x, net.w), (4,)),
    "mm by keyword": (lambda net, x: aten.mm.default(x, mat2=net.w), (4,)),
    "addmm": (lambda net, x: torch.addmm(net.b, x, net.w), (4,)),
    "addmm with factors of 1": (lambda net, x: torch.addmm(net.b, x, net.w, alpha=1, beta=1), (4,)),
    "addmm with one bias for all": (lambda net, x: torch.addmm(net.b[:1], x, net.w), (4,)),
    "addmm by keyword": (lambda net, x: aten.addmm.default(net.b, mat1=x, mat2=net.w), (4,)),
}


def product(answer: Callable[[Any, Tensor], Tensor], bn: nn.Module | None = None) -> Net:
    def normed(net: Any, x: Tensor) -> Tensor:
        y = answer(net, x)
        normed: Tensor = net.bn(y.flatten(0, -2)).reshape_as(y)
        return normed

    return trained(
        Net(
            normed,
            w=normal(4, 5, seed=1),
            wt=normal(5, 4, seed=2),
            b=normal(5, seed=3),
            bn=bn or nn.BatchNorm1d(5),
        )
    )


@pytest.mark.parametrize("spelling", PRODUCTS)
def test_a_norm_folds_into_a_product_with_a_constant_matrix(spelling: str) -> None:
    answer, row = PRODUCTS[spelling]
    net = product(answer)
    assert only(net, *row).outcome == "into_producer"
    assert aten.linear.default in left(net, *row)


@pytest.mark.parametrize("spelling", PRODUCTS)
def test_a_norm_goes_forward_into_a_product_with_a_constant_matrix(spelling: str) -> None:
    answer, row = PRODUCTS[spelling]
    net = Net(
        lambda net, x: answer(net, net.bn(x.flatten(0, -2)).reshape_as(x).relu()),
        w=normal(4, 5, seed=1),
        wt=normal(5, 4, seed=2),
        b=normal(5, seed=3),
        bn=nn.BatchNorm1d(4),
    )
    assert only(trained(net), *row).outcome == "into_consumer"


UNLIKE_PRODUCTS: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...]]] = {
    "alpha": (lambda net, x: torch.addmm(net.b, x, net.w, alpha=2), (4,)),
    "beta": (lambda net, x: torch.addmm(net.b, x, net.w, beta=0.5), (4,)),
    "beta of 0": (lambda net, x: torch.addmm(net.b, x, net.w, beta=0), (4,)),
    "bias of rank 2": (lambda net, x: torch.addmm(net.b.reshape(1, 5), x, net.w), (4,)),
    "bias from the input": (lambda net, x: torch.addmm(x.sum(1, keepdim=True), x, net.w), (4,)),
    "matrix first": (lambda net, x: torch.matmul(net.w.t(), x).transpose(1, 2), (4, 3)),
    "batch of matrices": (lambda net, x: torch.matmul(x, net.w.expand(3, 4, 5)), (3, 7, 4)),
    "matrix from the input": (lambda net, x: x @ (x.transpose(1, 2) * net.square), (3, 4)),
    "one matrix for each row": (lambda net, x: x @ (net.w * x.mean((1, 2), keepdim=True)), (3, 4)),
}


@pytest.mark.parametrize("spelling", UNLIKE_PRODUCTS)
def test_other_products_are_left_alone_and_right(spelling: str) -> None:
    answer, row = UNLIKE_PRODUCTS[spelling]

    def normed(net: Any, x: Tensor) -> Any:
        y = answer(net, x)
        return net.bn(y.flatten(0, -2)).reshape_as(y)

    width = 3 if spelling == "matrix from the input" else 5
    net = Net(
        normed, w=normal(4, 5), b=normal(5, seed=3), square=normal(4, 3, seed=4), bn=nn.BatchNorm1d(width)
    )
    assert only(trained(net), *row).outcome == "kept"
    assert aten.linear.default not in left(net, *row)


def test_a_product_with_a_vector_is_left_alone_and_right() -> None:
    net = Net(lambda net, x: net.bn(x @ net.w), w=normal(5), bn=nn.BatchNorm1d(4))
    assert only(trained(net), 4, 5).outcome == "kept"
    assert aten.linear.default not in left(net, 4, 5)


def test_a_product_of_two_constants_is_one_matrix() -> None:
    net = Net(
        lambda net, x: net.bn(x @ (net.a @ net.b)), a=normal(4, 3), b=normal(3, 5), bn=nn.BatchNorm1d(5)
    )
    assert only(trained(net), 4).outcome == "into_producer"
    assert left(net, 4) == [aten.linear.default]


def test_products_of_one_value_are_summed_into_one() -> None:
    net = Net(lambda net, x: x @ net.a - torch.addmm(net.c, x, net.b), a=normal(4, 5), b=normal(4, 5, seed=1))
    net.register_buffer("c", normal(5, seed=2))
    judged(net, 4)
    assert left(net, 4) == [aten.linear.default]


def test_products_of_integers_keep_their_dtype() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        whole = (x * 8).to(torch.int64)
        return (whole @ net.a + whole @ net.b).float()

    net = Net(answer, a=torch.arange(20).reshape(4, 5), b=torch.arange(20, 40).reshape(4, 5))
    assert judged(net, 4).norms == 0


# aten.convolution.


def spelled(net: Any, x: Tensor, *, transposed: bool = False, **options: Any) -> Tensor:
    given = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1, **options}
    rank = net.w.dim() - 2
    numbers = {key: value if key == "groups" else [value] * rank for key, value in given.items()}
    answer: Tensor = aten.convolution.default(
        x,
        net.w,
        getattr(net, "b", None),
        numbers["stride"],
        numbers["padding"],
        numbers["dilation"],
        transposed,
        numbers["output_padding"],
        numbers["groups"],
    )
    return answer


NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "in groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4},
    "transposed": {"transposed": True},
    "transposed in groups": {"transposed": True, "groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
    "transposed and dilated": {"transposed": True, "dilation": 2, "groups": 4},
}


@pytest.mark.parametrize(("rank", "bias"), [(1, False), (2, True), (2, False), (3, True)])
@pytest.mark.parametrize("spelling", CONVOLUTIONS)
def test_a_norm_folds_into_any_convolution(spelling: str, bias: bool, rank: int) -> None:
    options = CONVOLUTIONS[spelling]
    groups = options.get("groups", 1)
    parts: dict[str, Any] = {"b": nn.Parameter(torch.ones(4))} if bias else {}
    net = Net(
        lambda net, x: net.bn(spelled(net, x, **options)),
        w=normal(4, 4 // groups, *[3] * rank),
        bn=NORMS[rank](4),
        **parts,
    )
    layer = only(trained(net), 4, *[5] * rank)
    assert (layer.outcome, layer.partner) == ("into_producer", "w")
    assert len(left(net, 4, *[5] * rank)) == 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_norm_goes_forward_into_any_convolution(rank: int) -> None:
    net = Net(
        lambda net, x: spelled(net, net.bn(x).relu(), groups=2),
        w=normal(6, 2, *[3] * rank),
        b=normal(6, seed=1),
        bn=NORMS[rank](4),
    )
    assert only(trained(net), 4, *[5] * rank).outcome == "into_consumer"


def test_a_convolution_with_a_kernel_from_the_input_is_right_and_keeps_the_norm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        rows = x.reshape(1, -1, 6, 6)
        kernels = torch.sigmoid(x.mean((2, 3))).reshape(-1, 1, 1, 1)
        none = [0, 0]
        y = aten.convolution.default(rows, kernels, None, [1, 1], none, [1, 1], False, none, x.shape[0] * 4)
        return net.bn(y.reshape_as(x))

    net = trained(Net(answer, bn=nn.BatchNorm2d(4)))
    assert only(net, *ROW).outcome == "kept"


def test_a_convolution_and_its_module_are_merged_although_they_are_spelled_differently() -> None:
    net = Net(lambda net, x: spelled(net, x, padding=1) + net.conv(x), w=normal(4, 4, 3, 3), conv=conv())
    judged(trained(net), *ROW)
    assert len(left(net, *ROW)) == 1


# Slices.


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "colons": lambda y: y[:, :, :, :],
    "rows": lambda y: y[:],
    "from 0": lambda y: y[:, 0:],
    "to the end": lambda y: y[:, :4],
    "past the end": lambda y: y[:, :100],
    "in steps of 1": lambda y: y[:, ::1],
    "last axis": lambda y: y[..., 0:6],
}
PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "not the last": lambda y: y[:, :-1],
    "not the first": lambda y: y[:, 1:],
    "every second": lambda y: y[:, ::2],
    "from behind": lambda y: y[:, -2:],
}


@pytest.mark.parametrize("part", WHOLE)
def test_slices_of_everything_are_dropped(part: str) -> None:
    net = Net(lambda net, x: net.bn(WHOLE[part](net.conv(x))), conv=conv(), bn=nn.BatchNorm2d(4))
    assert aten.slice.Tensor not in targets(trained(net), *ROW)
    assert only(net, *ROW).outcome == "into_producer"


def test_a_slice_of_everything_as_the_answer_is_right() -> None:
    assert only(
        trained(Net(lambda net, x: net.bn(net.conv(x))[:, :4], conv=conv(), bn=nn.BatchNorm2d(4))), *ROW
    )


@pytest.mark.parametrize("part", PARTS)
def test_slices_of_a_part_stay_and_a_norm_folds_through_them(part: str) -> None:
    channels = PARTS[part](torch.ones(1, *ROW)).shape[1]
    net = Net(lambda net, x: net.bn(PARTS[part](net.conv(x))), conv=conv(), bn=nn.BatchNorm2d(channels))
    assert aten.slice.Tensor in targets(trained(net), *ROW)
    assert only(net, *ROW).outcome == "into_producer"


def test_a_norm_of_some_rows_of_pixels_is_kept() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x)[:, :, 1:3]), conv=conv(), bn=nn.BatchNorm2d(4))
    assert only(trained(net), *ROW).outcome == "kept"


@pytest.mark.parametrize("part", WHOLE)
def test_what_is_read_whole_and_through_a_slice_of_everything_is_read_twice(part: str) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return net.bn(WHOLE[part](y)) * y.sigmoid()

    assert only(trained(Net(answer, conv=conv(), bn=nn.BatchNorm2d(4))), *ROW).outcome == "kept"


# Clamps.


CLAMPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "number from above": lambda _, y: torch.clamp_max(y, 0.4),
    "number from below": lambda _, y: torch.clamp_min(y, -0.2),
    "numbers": lambda _, y: torch.clamp(y, -0.2, 0.4),
    "number, above only": lambda _, y: torch.clamp(y, max=0.4),
    "tensors": lambda net, y: torch.clamp(y, net.low, net.high),
    "tensors by keyword": lambda net, y: torch.clamp(y, min=net.low, max=net.high),
    "tensors that cross": lambda net, y: torch.clamp(y, net.high, net.low),
    "tensor, above only": lambda net, y: torch.clamp(y, max=net.high),
    "tensor, below only": lambda net, y: torch.clamp(y, min=net.low),
    "tensor from above": lambda net, y: aten.clamp_max.Tensor(y, net.high),
    "tensor from below": lambda net, y: aten.clamp_min.Tensor(y, net.low),
    "maximum": lambda net, y: torch.maximum(y, net.low),
    "maximum, constant first": lambda net, y: torch.maximum(net.low, y),
    "minimum": lambda net, y: torch.minimum(y, net.high),
    "minimum, constant first": lambda net, y: torch.minimum(net.high, y),
    "both": lambda net, y: torch.minimum(torch.maximum(net.low, y), net.high),
    "computed bound": lambda net, y: torch.maximum(y, -net.high.exp()),
    "one bound": lambda net, y: torch.maximum(y, net.low[0]),
    "bound per element": lambda net, y: torch.maximum(y, net.low * net.width),
    "integer bound": lambda net, y: torch.maximum(y, torch.zeros(1, dtype=torch.int64)),
}


def clamped(spelling: str, answer: Callable[[Any, Tensor], Tensor]) -> Net:
    net = Net(
        answer,
        first=conv(),
        last=conv(1),
        bn=nn.BatchNorm2d(4),
        low=normal(4, 1, 1) * 0.3 - 0.2,
        high=normal(4, 1, 1, seed=1) * 0.3 + 0.4,
        width=positive(6),
    )
    trained(net)
    with torch.no_grad():
        net.get_parameter("bn.weight").copy_(MIXED)
    return net


@pytest.mark.parametrize("spelling", CLAMPS)
def test_a_norm_folds_backward_through_every_spelling_of_a_clamp(spelling: str) -> None:
    net = clamped(spelling, lambda net, x: net.bn(CLAMPS[spelling](net, net.first(x))))
    assert only(net, *ROW).outcome == "into_producer"


@pytest.mark.parametrize("spelling", [spelling for spelling in CLAMPS if spelling != "bound per element"])
def test_a_norm_goes_forward_through_every_spelling_of_a_clamp(spelling: str) -> None:
    net = clamped(spelling, lambda net, x: net.last(CLAMPS[spelling](net, net.bn(x))))
    assert only(net, *ROW).outcome == "into_consumer"


def test_a_clamp_with_a_bound_for_every_element_keeps_the_norm_before_it() -> None:
    net = clamped("", lambda net, x: net.last(CLAMPS["bound per element"](net, net.bn(x))))
    assert only(net, *ROW).outcome == "kept"


BOUNDS_FROM_THE_INPUT: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "maximum": lambda net, y: torch.maximum(net.bn(y), y),
    "minimum, other first": lambda net, y: torch.minimum(y, net.bn(y)),
    "clamp": lambda net, y: torch.clamp(net.bn(y), min=y.sin()),
    "the norm as the bound": lambda net, y: torch.clamp(y.sin(), max=net.bn(y)),
    "one bound from it": lambda net, y: torch.clamp(net.bn(y), min=net.low, max=y.cos()),
}


@pytest.mark.parametrize("spelling", BOUNDS_FROM_THE_INPUT)
def test_a_bound_that_depends_on_the_input_is_no_clamp(spelling: str) -> None:
    net = clamped("", lambda net, x: net.last(BOUNDS_FROM_THE_INPUT[spelling](net, net.first(x))))
    assert only(net, *ROW).outcome == "kept"


SPREADING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "maximum": torch.maximum,
    "minimum, bound first": lambda y, bound: torch.minimum(bound, y),
    "clamp_min": aten.clamp_min.Tensor,
    "clamp": lambda y, bound: torch.clamp(y, min=bound),
}


@pytest.mark.parametrize("spelling", SPREADING)
def test_a_bound_that_is_larger_than_the_value_spreads_it_and_the_answer_is_right(spelling: str) -> None:
    def backward(net: Any, x: Tensor) -> Any:
        return net.bn(SPREADING[spelling](net.linear(x), net.bound).transpose(1, 2))

    def forward(net: Any, x: Tensor) -> Any:
        return net.last(SPREADING[spelling](net.bn(net.linear(x)), net.bound))

    parts: dict[str, Any] = {"linear": nn.Linear(1, 1), "last": nn.Linear(6, 3), "bound": normal(6)}
    judged(trained(Net(backward, bn=nn.BatchNorm1d(6), **parts)), 4, 1)
    judged(trained(Net(forward, bn=nn.BatchNorm1d(4), **parts)), 4, 1)


def test_a_bound_of_a_higher_rank_is_right() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.last(torch.clamp(net.bn(x), min=net.bound).squeeze(0))

    judged(trained(Net(answer, bn=nn.BatchNorm2d(4), last=conv(1), bound=normal(1, 1, 4, 1, 1))), *ROW)
