"""Branches of one value that are summed become one convolution; what only looks like it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph import fold
from service.graph.linear import LinearCall

from .networks import Net, judged, normal, outcomes, trained

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = (4, 6, 6)


def conv(kernel: Any = 3, c_in: int = 4, c_out: int = 4, **options: Any) -> nn.Conv2d:
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    return nn.Conv2d(c_in, c_out, kernel, **{"padding": padding, **options})


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4)


def linear_calls(net: nn.Module, *row: int) -> int:
    """How many convolutions and linear layers the folded network computes."""
    graph = fold(net, normal(2, *(row or ROW))).module.graph
    return sum(LinearCall.is_one(node) for node in graph.nodes if node.op == "call_function")


def sums(net: nn.Module, *row: int) -> int:
    """How many additions and subtractions are left."""
    graph = fold(net, normal(2, *(row or ROW))).module.graph
    kinds = {torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor}
    return sum(node.target in kinds for node in graph.nodes)


def assert_left(net: nn.Module, *row: int, calls: int, kept: int = 0) -> None:
    """The folded network is right, computes that many linear calls, and keeps that many norms."""
    assert judged(net, *(row or ROW)).kept == kept
    assert linear_calls(net, *row) == calls


# Architectures that are reparameterised by their authors.


def repvgg(net: Any, x: Tensor) -> Any:
    y = net.stem(x).relu()
    return (net.dense_bn(net.dense(y)) + net.point_bn(net.point(y)) + net.bn(y)).relu()


def test_a_repvgg_block_becomes_one_convolution() -> None:
    parts = {"dense": conv(bias=False), "point": conv(1, bias=False), "stem": conv()}
    net = trained(Net(repvgg, **parts, dense_bn=norm(), point_bn=norm(), bn=norm()))
    assert_left(net, calls=2)
    assert sums(net) == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)], ids=str)
def test_the_order_of_the_branches_does_not_matter(order: tuple[int, ...]) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        branches = [net.dense(x), net.point(x), net.bn(x)]
        return sum((branches[i] for i in order[1:]), branches[order[0]])

    assert_left(trained(Net(answer, dense=conv(), point=conv(1), bn=norm())), calls=1)


def test_a_mobileone_block_becomes_one_convolution() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(x)
        for branch in net.branches:
            y = y + branch(x)
        return y.relu()

    branches = [nn.Sequential(conv(kernel, groups=4, bias=False), norm()) for kernel in (1, 3, 3, 3, 3)]
    assert_left(trained(Net(answer, bn=norm(), branches=nn.ModuleList(branches))), calls=1)


def test_a_repmixer_becomes_one_convolution_and_its_identity() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.stem(x)
        mixer = net.dense_bn(net.dense(y)) + net.point_bn(net.point(y)) + net.mixer_bn(y)
        return y + net.gamma * (mixer - net.bn(y))

    net = Net(
        answer,
        stem=conv(1),
        dense=conv(groups=4),
        dense_bn=norm(),
        point=conv(1, groups=4),
        point_bn=norm(),
        mixer_bn=norm(),
        bn=norm(),
        gamma=nn.Parameter(torch.ones(4, 1, 1)),
    )
    found = {name: outcome for name, outcome, _ in outcomes(judged(trained(net), *ROW))}
    assert found["bn"] == found["mixer_bn"] == "merged_branch"
    assert_left(net, calls=2)


def test_an_asymmetric_block_becomes_one_convolution() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return sum((part(x) for part in net.parts[1:]), net.parts[0](x))

    for shapes in ([3, (1, 3), (3, 1)], [(1, 3), 3, (3, 1)], [(3, 1), (1, 3), 3]):
        parts = [nn.Sequential(conv(shape, bias=False), norm()) for shape in shapes]
        assert_left(trained(Net(answer, parts=nn.ModuleList(parts))), calls=1)


# Two parallel convolutions.


TWO: dict[str, tuple[nn.Module, nn.Module]] = {
    "the same shape": (conv(), conv()),
    "without bias": (conv(bias=False), conv(bias=False)),
    "one bias": (conv(bias=False), conv(1)),
    "small in large": (conv(5), conv(3)),
    "even in even": (conv(4, padding=2), conv(2, padding=1)),
    "dilated in large": (conv(5), conv(3, padding=2, dilation=2)),
    "dilated in dilated": (conv(3, padding=4, dilation=4), conv(1)),
    "stretched in dilated": (conv(5, padding=4, dilation=2), conv(3, padding=4, dilation=4)),
    "in groups": (conv(groups=2), conv(1, groups=2)),
    "depthwise": (conv(5, groups=4), conv(3, groups=4)),
    "strided": (conv(stride=2), conv(1, stride=2)),
    "strided unevenly": (conv(stride=(2, 3)), conv(1, stride=(2, 3))),
    "strided and off the middle": (conv(4, padding=1, stride=2), conv(2, padding=0, stride=2)),
    "same": (conv(padding="same"), conv(1, padding="same")),
    "same, even": (conv(4, padding="same"), conv(3, padding="same")),
    "same, even and dilated": (conv(4, padding="same", dilation=2), conv(2, padding="same", dilation=2)),
    "valid": (conv(2, padding="valid"), conv(2, padding="valid")),
    "other channels": (conv(3, c_out=7), conv(1, c_out=7)),
    "one axis larger": (conv((3, 5)), conv((3, 1))),
}


@pytest.mark.parametrize("pair", TWO)
@pytest.mark.parametrize("is_large_first", [True, False], ids=["large first", "small first"])
@pytest.mark.parametrize("is_difference", [True, False], ids=["difference", "sum"])
def test_two_parallel_convolutions_become_one(pair: str, is_large_first: bool, is_difference: bool) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        first, second = (net.large, net.small) if is_large_first else (net.small, net.large)
        return first(x) - second(x) if is_difference else first(x) + second(x)

    large, small = TWO[pair]
    net = trained(Net(answer, large=large, small=small))
    assert judged(net, *ROW).norms == 0
    alike = large.weight.shape == small.weight.shape
    # Of a difference only the second can go.
    goes = not is_difference or is_large_first or (alike and "dilated" not in pair)
    assert linear_calls(net) == (1 if goes else 2)


@pytest.mark.parametrize("pair", [(nn.Conv1d, (4, 9)), (nn.Conv3d, (4, 4, 3, 5))], ids=["1d", "3d"])
def test_parallel_convolutions_of_other_ranks_become_one(pair: tuple[Any, tuple[int, ...]]) -> None:
    kind, row = pair
    net = Net(
        lambda net, x: net.a(x) + (net.c(x) - net.b(x)),
        a=kind(4, 6, 3, padding=1, stride=2, groups=2),
        b=kind(4, 6, 1, stride=2, groups=2),
        c=kind(4, 6, 5, padding=2, stride=2, groups=2),
    )
    assert_left(trained(net), *row, calls=1)


def test_parallel_linear_layers_become_one() -> None:
    parts: dict[str, Any] = {"a": nn.Linear(5, 3), "b": nn.Linear(5, 3, bias=False), "c": nn.Linear(5, 3)}
    net = trained(Net(lambda net, x: net.a(x) + net.b(x) - net.c(x), **parts))
    assert_left(net, 5, calls=1)
    assert_left(net, 7, 5, calls=1)


@pytest.mark.parametrize("first", ["convolution", "linear"])
@pytest.mark.parametrize("row", [(4, 6), (4, 6, 6)], ids=["1d", "2d"])
def test_a_linear_layer_beside_a_convolution_of_the_same_value_is_not_merged(
    first: str, row: tuple[int, ...]
) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.conv(x) + net.linear(x) if first == "convolution" else net.linear(x) - net.conv(x)

    kind = nn.Conv1d if len(row) == 2 else nn.Conv2d
    net = Net(answer, conv=kind(4, 4, 3, padding=1), linear=nn.Linear(6, 6))
    assert_left(trained(net), *row, calls=2)


# Signs.


SIGNED: dict[str, tuple[Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], int]] = {
    "plus": (lambda n, c, p, q: c + n, 0),
    "minus": (lambda n, c, p, q: c - n, 0),
    "minus a difference": (lambda n, c, p, q: p - (c - n), 0),
    "minus a sum": (lambda n, c, p, q: p - (c + n), 0),
    "minus, minus": (lambda n, c, p, q: p - (q - (c - n)), 0),
    "in another leg": (lambda n, c, p, q: (p - n) - (q - c), 0),
    "in another leg, both signs": (lambda n, c, p, q: (p + n) - (q - c), 0),
    "far apart": (lambda n, c, p, q: ((n + p) + q) - c, 0),
    "first, subtracted from in a leg": (lambda n, c, p, q: c - (n - p), 1),
    "first, subtracted from": (lambda n, c, p, q: n - c, 1),
    "first of all": (lambda n, c, p, q: (n - p) + c, 1),
}


@pytest.mark.parametrize("signs", SIGNED)
def test_a_norm_is_merged_with_its_sign(signs: str) -> None:
    combined, kept = SIGNED[signs]

    def answer(net: Any, x: Tensor) -> Any:
        return combined(net.bn(x), net.conv(x), x.sin(), x.cos())

    assert_left(trained(Net(answer, bn=norm(), conv=conv())), calls=1, kept=kept)


@pytest.mark.parametrize("signs", SIGNED)
def test_a_convolution_is_merged_with_its_sign(signs: str) -> None:
    combined, kept = SIGNED[signs]

    def answer(net: Any, x: Tensor) -> Any:
        return combined(net.other(x), net.conv(x), x.sin(), x.cos())

    assert_left(trained(Net(answer, other=conv(1), conv=conv())), calls=1 + kept)


@pytest.mark.parametrize("signs", SIGNED)
def test_a_large_kernel_takes_a_small_one_with_its_sign(signs: str) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return SIGNED[signs][0](net.other(x), net.conv(x), x.sin(), x.cos())

    net = trained(Net(answer, other=conv(), conv=conv(1)))
    assert judged(net, *ROW).norms == 0
    assert linear_calls(net) in (1, 2)


def test_sums_in_place_are_merged() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.a(x)
        y += net.b(x)
        y -= net.bn(x)
        y.add_(net.c(x))
        return y.relu_()

    assert_left(trained(Net(answer, a=conv(), b=conv(1), c=conv(), bn=norm())), calls=1)


def test_two_norms_of_one_value_beside_a_convolution_are_both_merged() -> None:
    net = Net(lambda net, x: net.a(x) + net.conv(x) - net.b(x), a=norm(), b=norm(), conv=conv())
    assert_left(trained(net), calls=1)


def test_one_norm_twice_beside_a_convolution_is_merged_twice() -> None:
    net = Net(lambda net, x: net.bn(x) + net.conv(x) + net.bn(x), bn=norm(), conv=conv())
    assert_left(trained(net), calls=1)


def test_one_convolution_called_twice_is_twice_its_kernel() -> None:
    net = Net(lambda net, x: net.conv(x) + net.conv(x), conv=conv())
    assert_left(trained(net), calls=1)


def test_one_convolution_minus_itself_is_0() -> None:
    net = trained(Net(lambda net, x: net.conv(x) - net.conv(x) + net.bn(x), conv=conv(), bn=norm()))
    assert_left(net, calls=1)


def test_two_sums_of_one_value_become_two_convolutions() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return (net.a(x) + net.b(x)).relu() * (net.c(x) + net.d(x) - net.bn(x))

    net = Net(answer, a=conv(), b=conv(1), c=conv(), d=conv(1), bn=norm())
    assert_left(trained(net), calls=2)


def test_blocks_behind_each_other_are_all_merged() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        for block in net.blocks:
            x = (block["a"](x) + block["b"](x) + block["bn"](x)).relu()
        return x

    blocks = [nn.ModuleDict({"a": conv(), "b": conv(1), "bn": norm()}) for _ in range(3)]
    assert_left(trained(Net(answer, blocks=nn.ModuleList(blocks))), calls=3)


def test_a_norm_of_the_merged_sum_goes_into_all_its_convolutions() -> None:
    net = Net(
        lambda net, x: net.out(net.a(x) - net.b(x) + net.bn(x)), a=conv(), b=conv(1), bn=norm(), out=norm()
    )
    assert_left(trained(net), calls=1)


def test_a_norm_with_a_map_per_row_beside_it_is_merged() -> None:
    net = Net(
        lambda net, x: net.conv(x) + (net.bn(x) + net.offset),
        conv=conv(),
        bn=norm(),
        offset=nn.Parameter(torch.ones(1, *ROW)),
    )
    assert_left(trained(net), calls=1)


def test_convolutions_with_constants_of_one_row_beside_them_are_merged() -> None:
    net = Net(
        lambda net, x: (net.a(x) + net.s) - (net.t - net.b(x)),
        a=conv(),
        b=conv(1),
        s=nn.Parameter(torch.ones(1, *ROW)),
        t=nn.Parameter(torch.ones(1, *ROW)),
    )
    assert_left(trained(net), calls=1)


# The input of a convolution, added as it is: a norm of the sum goes through.


IDENTITIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "conv + x": (lambda x, y: y + x, 0),
    "x + conv": (lambda x, y: x + y, 0),
    "conv - x": (lambda x, y: y - x, 0),
    "conv + x + x": (lambda x, y: (y + x) + x, 0),
    "x - (x - conv)": (lambda x, y: x - (x - y), 1),
    "x - conv": (lambda x, y: x - y, 1),
    "conv + (x + x)": (lambda x, y: y + (x + x), 1),
    "conv + x, conv read again": (lambda x, y: (y + x) + y, 1),
}


@pytest.mark.parametrize("sum_", IDENTITIES)
@pytest.mark.parametrize("other", [conv(), conv(1, groups=4), conv(5, groups=2, padding="same")], ids=repr)
def test_a_norm_of_a_sum_with_the_input_of_its_convolution(sum_: str, other: nn.Conv2d) -> None:
    combined, kept = IDENTITIES[sum_]

    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(combined(x, net.conv(x)))

    assert_left(trained(Net(answer, conv=other, bn=norm())), calls=1, kept=kept)


@pytest.mark.parametrize("other", [conv(2, padding=1, dilation=2), nn.ConvTranspose2d(4, 4, 1)], ids=repr)
def test_a_kernel_without_a_middle_does_not_take_its_input(other: nn.Module) -> None:
    net = Net(lambda net, x: net.bn(net.conv(x) + x), conv=other, bn=norm())
    assert_left(trained(net), calls=1, kept=1)


def test_the_input_of_a_convolution_is_taken_although_it_is_read_elsewhere() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.stem(x).relu()
        z = net.bn(net.conv(y) + y)
        return z * y.sigmoid() + net.other(y)

    assert_left(trained(Net(answer, stem=conv(), conv=conv(), bn=norm(), other=conv(1))), calls=3)


# What must not merge.


APART: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module]]] = {
    "another stride": (
        lambda net, x: net.a(x) + net.b(x)[:, :, :3, :3],
        {"a": conv(stride=2), "b": conv()},
    ),
    "another stride of the same size": (
        lambda net, x: net.a(x) + net.b(x),
        {"a": conv(1, stride=(5, 1)), "b": conv(1, stride=(4, 1))},
    ),
    "other groups": (lambda net, x: net.a(x) + net.b(x), {"a": conv(), "b": conv(groups=2)}),
    "another input": (lambda net, x: net.a(x) + net.b(x.relu()), {"a": conv(), "b": conv(1)}),
    "a part of the input": (lambda net, x: net.a(x) + net.b(x[:, :2]), {"a": conv(), "b": conv(1, 2)}),
    "wide and tall": (lambda net, x: net.a(x) + net.b(x), {"a": conv((1, 3)), "b": conv((3, 1))}),
    "between the taps": (
        lambda net, x: net.a(x) + net.b(x),
        {"a": conv(padding=2, dilation=2), "b": conv(3)},
    ),
    "another border": (
        lambda net, x: net.a(x) + net.b(x),
        {"a": conv(), "b": conv(padding_mode="reflect")},
    ),
    "transposed": (
        lambda net, x: net.a(x) + net.b(x),
        {"a": conv(), "b": nn.ConvTranspose2d(4, 4, 3, padding=1)},
    ),
    "both transposed": (
        lambda net, x: net.a(x) + net.b(x),
        {"a": nn.ConvTranspose2d(4, 4, 3, padding=1), "b": nn.ConvTranspose2d(4, 4, 3, padding=1)},
    ),
    "read elsewhere": (
        lambda net, x: (y := net.a(x)) * (net.b(x) + y).sigmoid(),
        {"a": conv(), "b": conv()},
    ),
    "both read elsewhere": (
        lambda net, x: ((y := net.a(x)) + (z := net.b(x))) * y.sin() * z.cos(),
        {"a": conv(), "b": conv()},
    ),
    "activated": (lambda net, x: net.a(x).relu() + net.b(x), {"a": conv(), "b": conv()}),
    "a sum over pixels": (
        lambda net, x: net.a(x) + net.b(x.mean((2, 3), keepdim=True)),
        {"a": conv(), "b": conv(1)},
    ),
    "one channel for all": (lambda net, x: net.a(x) + net.b(x), {"a": conv(), "b": conv(c_out=1)}),
    "alpha": (lambda net, x: torch.add(net.a(x), net.b(x), alpha=2), {"a": conv(), "b": conv()}),
    "alpha of a difference": (
        lambda net, x: torch.sub(net.a(x), net.b(x), alpha=0.5),
        {"a": conv(), "b": conv()},
    ),
    "a product": (lambda net, x: net.a(x) * net.b(x), {"a": conv(), "b": conv()}),
    "a concatenation": (lambda net, x: torch.cat([net.a(x), net.b(x)], 1), {"a": conv(), "b": conv()}),
    "a sum that is read twice": (
        lambda net, x: ((y := net.a(x) + x.sin()) + net.b(x)) * y,
        {"a": conv(), "b": conv()},
    ),
    "a sum with itself": (
        lambda net, x: ((y := net.a(x) + x.sin()) + y) + net.b(x),
        {"a": conv(), "b": conv()},
    ),
}


@pytest.mark.parametrize("case", APART)
def test_other_parallel_convolutions_stay_two(case: str) -> None:
    answer, parts = APART[case]
    assert_left(trained(Net(answer, **parts)), calls=2)


def test_of_three_convolutions_those_that_fit_become_one() -> None:
    net = Net(
        lambda net, x: net.a(x) + net.b(x) + net.c(x) + net.d(x),
        a=conv((1, 3)),
        b=conv((3, 1)),
        c=conv(1),
        d=conv(groups=2),
    )
    assert_left(trained(net), calls=3)


KEPT: dict[str, tuple[Callable[[Any, Tensor], Any], nn.Module]] = {
    "a value minus itself": (lambda net, x: ((y := net.bn(x)) - y) + net.conv(x), conv()),
    "the norm twice": (lambda net, x: ((y := net.bn(x)) + y) + net.conv(x), conv()),
    "the norm read elsewhere": (lambda net, x: ((y := net.bn(x)) + net.conv(x)) * y.sin(), conv()),
    "the convolution read elsewhere": (lambda net, x: (net.bn(x) + (y := net.conv(x))) * y.sin(), conv()),
    "alpha": (lambda net, x: torch.add(net.conv(x), net.bn(x), alpha=2), conv()),
    "over pixels": (lambda net, x: net.conv(x.mean((2, 3), keepdim=True)) + net.bn(x), conv(1)),
    "of pixels": (lambda net, x: net.conv(x) + net.bn(x.mean((2, 3), keepdim=True)), conv(1)),
    "another input": (lambda net, x: net.conv(x) + net.bn(x.sin()), conv()),
    "a stride": (lambda net, x: net.conv(x) + net.bn(x)[:, :, :3, :3], conv(stride=2)),
    "other channels": (lambda net, x: net.conv(x) + net.bn(x), conv(c_out=1)),
    "a linear layer": (lambda net, x: net.conv(x) + net.bn(x), nn.Linear(6, 6)),
    "no tap in the middle": (lambda net, x: net.conv(x) + net.bn(x), conv(2, padding=1, dilation=2)),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_norm_beside_what_only_looks_alike_is_kept(case: str) -> None:
    answer, other = KEPT[case]
    assert_left(trained(Net(answer, conv=other, bn=norm())), calls=1, kept=1)


def test_a_norm_of_constants_and_convolutions_of_constants_are_right() -> None:
    """Rules that change the weights of a convolution of a constant must not read its earlier value."""

    def summed(net: Any, x: Tensor) -> Any:
        return net.bn(net.a(x) + net.b(net.template))

    def added(net: Any, x: Tensor) -> Any:
        return x + (net.a(net.template) + net.b(net.template))

    parts: dict[str, Any] = {"a": conv(), "b": conv(), "template": normal(1, *ROW)}
    assert "undone" not in "".join(
        layer.reason for layer in judged(trained(Net(summed, bn=norm(), **parts)), *ROW).layers
    )
    judged(trained(Net(added, **parts)), *ROW)


def test_convolutions_whose_batch_is_not_the_first_axis_are_right() -> None:
    """A convolution of `[C, N]` without a batch has its channels on the first axis."""

    def summed(net: Any, x: Tensor) -> Any:
        return (net.a(x.t()) + net.b(x.t())).t()

    def scaled(net: Any, x: Tensor) -> Any:
        return (net.a(x.t()) * 3).t()

    for answer in (summed, scaled):
        judged(trained(Net(answer, a=nn.Conv1d(4, 5, 1), b=nn.Conv1d(4, 5, 1))), 4)


def test_a_constant_of_one_row_in_a_sum_is_no_branch() -> None:
    net = Net(
        lambda net, x: (net.bn(x) + net.k) + net.lin(x),
        bn=nn.BatchNorm1d(6),
        k=normal(1, 6),
        lin=nn.Linear(6, 6),
    )
    judged(trained(net), 6)
    judged(trained(Net(lambda net, x: (x + net.k) + net.lin(x), k=normal(1, 6), lin=nn.Linear(6, 6))), 6)
