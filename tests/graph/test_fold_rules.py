"""Where norms go, rule by rule: backward, into branches, and forward; always against torch in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Net, judged, outcomes, positive, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph.report import NormOutcome

ROW = (4, 6, 6)
MIXED = [1.5, -0.7, 0.0, 2.0]
POSITIVE = [1.5, 0.7, 0.1, 2.0]


def conv(kernel: int = 3, c_in: int = 4, c_out: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, **{"padding": kernel // 2, **options})


def norm(channels: int = 4) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


@torch.no_grad()
def scaled(net: nn.Module, gammas: list[float] | None = None, *, shift: bool = True) -> nn.Module:
    """`net` trained, its norms with these gammas (positive ones where none are given)."""
    trained(net)
    for number, module in enumerate(net.modules()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            count = module.num_features
            module.weight.copy_(positive(count, seed=number) if gammas is None else torch.tensor(gammas))
            if not shift:
                module.bias.zero_()
                module.state_dict()["running_mean"].zero_()
    return net


def only(net: nn.Module, *row: int) -> NormOutcome:
    """What became of the network's only norm."""
    (layer,) = judged(net, *(row or ROW)).layers
    return layer


def becomes(net: nn.Module, outcome: str, *partners: str, row: tuple[int, ...] = ROW) -> None:
    layer = only(net, *row)
    assert (layer.outcome, layer.partner) == (outcome, ", ".join(partners) or None), layer.reason


def kept_because(net: nn.Module, reason: str, row: tuple[int, ...] = ROW) -> None:
    layer = only(net, *row)
    assert (layer.outcome, layer.partner) == ("kept", None)
    assert reason in layer.reason


# Backward: into what computes the input.


def test_a_norm_behind_a_linear_layer_on_tokens_folds_through_the_flattening() -> None:
    def answer(net: Any, x: Tensor) -> Any:  # as LeViT writes it
        y = net.linear(x)
        return net.bn(y.flatten(0, 1)).reshape_as(y)

    net = Net(answer, linear=nn.Linear(5, 8, bias=False), bn=nn.BatchNorm1d(8))
    becomes(trained(net), "into_producer", "linear", row=(7, 5))


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "tokens": (lambda y: y.flatten(2).permute(0, 2, 1).flatten(0, 1), nn.BatchNorm1d(4)),
    "view": (lambda y: y.view(y.shape[0], 2, 2, 6, 6).reshape(y.shape), norm()),
    "transposed": (lambda y: y.transpose(2, 3), norm()),
    "flipped": (lambda y: y.flip(1), norm()),
    "rolled": (lambda y: torch.roll(y, 1, 1), norm()),
    "pixel shuffle": (lambda y: F.pixel_shuffle(y, 2), norm(1)),
    "channel shuffle": (lambda y: F.channel_shuffle(y, 2), norm()),
    "part": (lambda y: y[:, 1:3], norm(2)),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_norm_folds_through_moved_data(move: str) -> None:
    moved, bn = MOVES[move]
    net = Net(lambda net, x: net.bn(moved(net.conv(x))), conv=conv(), bn=bn)
    becomes(trained(net), "into_producer", "conv")


@pytest.mark.parametrize("branches", [2, 3])
def test_a_norm_of_a_concatenation_folds_into_every_part(branches: int) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(torch.cat([part(x) for part in net.parts], 1))

    parts = nn.ModuleList([conv(2 * i + 1, c_out=i + 2) for i in range(branches)])
    net = Net(answer, parts=parts, bn=norm(sum(i + 2 for i in range(branches))))
    becomes(trained(net), "into_producer", *[f"parts.{i}" for i in range(branches)])


def test_a_mixed_convolution_of_split_channels_folds() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        first, second = net.expand(x).split([2, 4], 1)
        return net.bn(torch.cat([net.a(first), net.b(second)], 1))

    net = Net(answer, expand=conv(1, 4, 6), a=conv(3, 2, 2, groups=2), b=conv(5, 4, 4, groups=4), bn=norm(6))
    becomes(trained(net), "into_producer", "a", "b")


def test_a_dense_layer_folds_through_its_concatenation_of_activations() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.last(net.bn(torch.cat([net.a(x).relu(), net.b(x)], 1)))

    net = Net(answer, a=conv(), b=conv(1), bn=norm(8), last=conv(3, 8, 2))
    becomes(trained(net), "into_producer", "a", "b")


def test_a_norm_of_a_concatenation_with_the_input_is_kept() -> None:
    net = Net(lambda net, x: net.bn(torch.cat([net.conv(x), x], 1)), conv=conv(), bn=norm(8))
    kept_because(trained(net), "the network's input")


def test_a_shuffle_unit_folds_every_norm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        left, right = net.stem_bn(net.stem(x)).chunk(2, 1)
        right = net.bn(net.depthwise(right))
        return net.head_bn(net.head(F.channel_shuffle(torch.cat([left, right], 1), 2)))

    net = Net(
        answer,
        stem=conv(),
        stem_bn=norm(),
        depthwise=conv(3, 2, 2, groups=2),
        bn=norm(2),
        head=conv(1),
        head_bn=norm(),
    )
    assert outcomes(judged(trained(net), *ROW)) == [
        ("stem_bn", "into_producer", "stem"),
        ("bn", "into_producer", "depthwise"),
        ("head_bn", "into_producer", "head"),
    ]


def test_a_norm_of_a_shuffled_concatenation_folds_into_both_parts() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        left, right = x.chunk(2, 1)
        joined = torch.cat([net.a(left), net.b(right)], 1)
        shuffled = joined.view(-1, 2, 2, 6, 6).transpose(1, 2).flatten(1, 2)
        return net.bn(shuffled)

    net = Net(answer, a=conv(1, 2, 2), b=conv(3, 2, 2), bn=norm())
    becomes(trained(net), "into_producer", "a", "b")


@pytest.mark.parametrize("is_split", [False, True])
def test_norms_of_disjoint_parts_both_fold(is_split: bool) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        left, right = y.split([2, 2], 1) if is_split else (y.narrow(1, 0, 2), y.narrow(1, 2, 2))
        return net.a(left).sin() * net.b(right)

    net = Net(answer, conv=conv(), a=norm(2), b=norm(2))
    assert outcomes(judged(trained(net), *ROW)) == [
        ("a", "into_producer", "conv"),
        ("b", "into_producer", "conv"),
    ]


def test_a_norm_of_one_part_leaves_the_other_part_alone() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        left, right = net.conv(x).chunk(2, 1)
        return net.bn(left) * right.sigmoid()

    becomes(trained(Net(answer, conv=conv(), bn=norm(2))), "into_producer", "conv")


def test_a_norm_of_a_part_that_overlaps_another_is_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return net.bn(y[:, :3]) * y[:, 1:].sigmoid()

    kept_because(trained(Net(answer, conv=conv(), bn=norm(3))), "the output of conv (conv2d) is also read by")


def test_a_norm_of_a_part_of_what_is_read_whole_is_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return net.bn(y[:, :2]).repeat(1, 2, 1, 1) * y.sigmoid()

    kept_because(trained(Net(answer, conv=conv(), bn=norm(2))), "is also read by")


def test_a_norm_of_a_residual_sum_folds_into_both_convolutions() -> None:
    net = Net(lambda net, x: net.bn(net.a(x) + net.b(x)), a=conv(), b=conv(1), bn=norm())
    becomes(trained(net), "into_producer", "a", "b")


def test_a_norm_of_a_sum_of_sums_through_activations_folds() -> None:
    net = Net(
        lambda net, x: net.bn(net.a(x).relu() + (net.b(x) + net.c(x))),
        a=conv(),
        b=conv(1),
        c=conv(5),
        bn=norm(),
    )
    becomes(scaled(net, MIXED), "into_producer", "a", "b", "c")


def test_a_norm_of_a_sum_with_the_input_is_kept() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x).tanh() + x), conv=conv(), bn=norm())
    kept_because(trained(net), "tanh")


def test_a_norm_of_a_convolution_and_its_own_input_folds() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x) + net.one(x) + x), conv=conv(), one=conv(1), bn=norm())
    becomes(trained(net), "into_producer", "conv", "one")


@pytest.mark.parametrize(
    ("join", "channels"), [(lambda y: torch.cat([y, y], 1), 8), (lambda y: y + y, 4)], ids=["cat", "sum"]
)
def test_a_norm_of_one_value_twice_is_kept(join: Callable[[Tensor], Tensor], channels: int) -> None:
    net = Net(lambda net, x: net.bn(join(net.conv(x))), conv=conv(), bn=norm(channels))
    kept_because(trained(net), "conv (conv2d) would have to take it twice")


POOLS: dict[str, nn.Module] = {
    "average": nn.AvgPool2d(2),
    "average, ceiling": nn.AvgPool2d(4, 3, ceil_mode=True),
    "average, padding not counted": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "adaptive, uneven": nn.AdaptiveAvgPool2d(4),
    "mean": Net(lambda _, x: x.mean((2, 3), keepdim=True)),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear, corners": nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("gammas", [POSITIVE, MIXED], ids=["positive", "mixed"])
def test_a_norm_folds_through_averages_and_resizes(pool: str, gammas: list[float]) -> None:
    becomes(scaled(nn.Sequential(conv(), POOLS[pool], norm()), gammas), "into_producer", "0")


def test_a_norm_folds_through_a_maximum_where_every_scale_is_positive() -> None:
    net = nn.Sequential(conv(), nn.MaxPool2d(3, 2, 1), norm())
    becomes(scaled(net, POSITIVE), "into_producer", "0")
    becomes(scaled(net, [1.0, 0.0, 0.0, 2.0]), "into_producer", "0")


def test_a_negative_scale_is_kept_behind_a_maximum() -> None:
    kept_because(
        scaled(nn.Sequential(conv(), nn.MaxPool2d(3, 2, 1), norm()), MIXED),
        "it cannot pass 1 (max_pool2d): a negative scale",
    )


def test_a_norm_is_kept_behind_an_average_over_padding() -> None:
    kept_because(
        scaled(nn.Sequential(conv(), nn.AvgPool2d(3, 1, 1), norm()), MIXED),
        "it cannot pass 1 (avg_pool2d): the pool averages over padded zeros",
    )


def test_a_norm_without_a_shift_folds_through_an_average_over_padding() -> None:
    net = scaled(nn.Sequential(conv(), nn.AvgPool2d(3, 1, 1), norm()), MIXED, shift=False)
    becomes(net, "into_producer", "0")


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (3, 2)])
def test_a_norm_folds_through_a_mean_that_drops_its_axes(axes: tuple[int, int]) -> None:
    net = Net(lambda net, x: net.bn(net.conv(x).mean(axes)), conv=conv(), bn=nn.BatchNorm1d(4))
    becomes(trained(net), "into_producer", "conv")


def test_a_norm_of_a_mean_over_the_channels_is_kept() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x).mean(1)), conv=conv(), bn=nn.BatchNorm1d(6))
    kept_because(trained(net), "it does not act on the output channels of conv")


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.8)], ids=repr)
@pytest.mark.parametrize("gammas", [POSITIVE, [-1.5, -0.7, -0.1, -2.0], [0.0] * 4, MIXED], ids=repr)
def test_a_norm_folds_through_a_clamp_whatever_its_scale(activation: nn.Module, gammas: list[float]) -> None:
    becomes(scaled(nn.Sequential(conv(), activation, norm()), gammas), "into_producer", "0")


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.LeakyReLU(0.1)], ids=repr)
def test_a_norm_is_kept_behind_other_activations(activation: nn.Module) -> None:
    kept_because(trained(nn.Sequential(conv(), activation, norm())), "which it cannot pass")


def test_a_norm_folds_through_a_layer_scale() -> None:
    net = Net(
        lambda net, x: net.bn((net.conv(x) * net.gamma).relu()),
        conv=conv(),
        bn=norm(),
        gamma=nn.Parameter(torch.ones(4, 1, 1)),
    )
    becomes(trained(net), "into_producer", "conv")


def test_a_layer_scale_behind_a_norm_goes_with_it() -> None:
    net = Net(
        lambda net, x: x + net.gamma * net.bn(net.conv(x)),
        conv=conv(),
        bn=norm(),
        gamma=nn.Parameter(torch.ones(4, 1, 1)),
    )
    becomes(trained(net), "into_producer", "conv")


def test_a_norm_without_a_shift_folds_through_a_gate() -> None:
    net = Net(
        lambda net, x: net.bn(net.conv(x) * net.gate(x.mean((2, 3), keepdim=True)).sigmoid()),
        conv=conv(),
        gate=conv(1),
        bn=norm(),
    )
    becomes(scaled(net, MIXED, shift=False), "into_producer", "conv")
    kept_because(scaled(net, MIXED), "(mul), which it cannot pass")


# Branches: into a convolution of the same input.


def test_a_repvgg_block_becomes_its_convolutions() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.stem(x).relu()
        return (net.dense_bn(net.dense(y)) + net.point_bn(net.point(y)) + net.bn(y)).relu()

    net = Net(
        answer,
        stem=conv(),
        dense=conv(bias=False),
        dense_bn=norm(),
        point=conv(1, bias=False),
        point_bn=norm(),
        bn=norm(),
    )
    found = {name: (outcome, partner) for name, outcome, partner in outcomes(judged(trained(net), *ROW))}
    assert found["dense_bn"] == ("into_producer", "dense")
    assert found["point_bn"] == ("into_producer", "point")
    assert found["bn"][0] == "merged_branch"
    assert found["bn"][1] in ("dense", "point")


SIBLINGS: dict[str, nn.Conv2d] = {
    "dense": conv(),
    "point": conv(1),
    "wide": conv(5),
    "depthwise": conv(groups=4),
    "in groups": conv(groups=2),
    "dilated": conv(padding=2, dilation=2),
    "no bias": conv(bias=False),
    "same": conv(padding="same"),
    "uneven": nn.Conv2d(4, 4, (1, 5), padding=(0, 2)),
}


@pytest.mark.parametrize("sibling", SIBLINGS)
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_norm_beside_a_convolution_is_added_to_its_kernel(sibling: str, norm_first: bool) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(x) + net.conv(x) if norm_first else net.conv(x) + net.bn(x)

    becomes(trained(Net(answer, conv=SIBLINGS[sibling], bn=norm())), "merged_branch", "conv")


def test_a_depthwise_block_with_several_branches_becomes_its_convolutions() -> None:
    def answer(net: Any, x: Tensor) -> Any:  # as MobileOne writes it
        y = net.bn(x)
        for branch in net.branches:
            y = y + branch(x)
        return y.relu()

    branches = [nn.Sequential(conv(kernel, groups=4, bias=False), norm()) for kernel in (1, 3, 3)]
    report = judged(trained(Net(answer, bn=norm(), branches=nn.ModuleList(branches))), *ROW)
    assert outcomes(report) == [
        ("bn", "merged_branch", "branches.0.0"),
        *[(f"branches.{i}.1", "into_producer", f"branches.{i}.0") for i in range(3)],
    ]


def test_a_norm_is_merged_although_its_input_is_read_elsewhere() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.stem(x).relu()
        return net.bn(y) + net.conv(y) + net.other(y) * y

    net = Net(answer, stem=conv(), bn=norm(), conv=conv(), other=conv(1))
    becomes(trained(net), "merged_branch", "conv")


UNLIKE: dict[str, tuple[nn.Conv2d, Callable[[Tensor], Tensor]]] = {
    "stride": (conv(stride=2), lambda y: y[:, :, ::2, ::2]),
    "less padding": (conv(padding=0), lambda y: y[:, :, 1:-1, 1:-1]),
    "one axis padded": (nn.Conv2d(4, 4, 3, padding=(2, 0)), lambda y: y[:, :, :1, :4]),
    "even kernel, dilated": (nn.Conv2d(4, 4, 2, padding=1, dilation=2), lambda y: y),
    "mirrored border": (conv(padding_mode="reflect"), lambda y: y),
    "one channel": (conv(c_out=1), lambda y: y),
}


@pytest.mark.parametrize("sibling", UNLIKE)
def test_a_norm_beside_an_unlike_convolution_is_not_merged(sibling: str) -> None:
    other, fit = UNLIKE[sibling]
    net = Net(lambda net, x: fit(net.bn(x)) + net.conv(x), conv=other, bn=norm())
    assert only(trained(net), *ROW).outcome == "kept"


def test_a_norm_beside_a_transposed_convolution_is_not_merged() -> None:
    other = nn.ConvTranspose2d(4, 4, 3, padding=1)
    net = Net(lambda net, x: net.bn(x) + net.conv(x), conv=other, bn=norm())
    kept_because(trained(net), "no convolution of the same input is summed with it")


def test_a_convolution_that_is_read_elsewhere_is_not_merged_with() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.conv(x)
        return (net.bn(x) + y) * y

    kept_because(trained(Net(answer, conv=conv(), bn=norm())), "no convolution of the same input")


def test_a_convolution_of_another_input_is_not_merged_with() -> None:
    net = Net(lambda net, x: net.bn(x) + net.conv(x.relu()), conv=conv(), bn=norm())
    kept_because(trained(net), "no convolution of the same input")


# Forward: into everything that reads the output.


@pytest.mark.parametrize("gammas", [POSITIVE, MIXED, [0.0] * 4], ids=repr)
def test_a_norm_goes_into_the_pointwise_convolution_behind_it(gammas: list[float]) -> None:
    becomes(scaled(nn.Sequential(norm(), conv(1)), gammas), "into_consumer", "1")


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.8)], ids=repr)
@pytest.mark.parametrize("gammas", [POSITIVE, MIXED, [0.0, 0.0, 0.0, -1.0]], ids=repr)
def test_a_norm_goes_forward_through_a_clamp(activation: nn.Module, gammas: list[float]) -> None:
    becomes(scaled(nn.Sequential(norm(), activation, conv(1)), gammas), "into_consumer", "2")


def test_a_norm_goes_into_all_convolutions_behind_it() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(x).relu()
        return net.a(y)[:, :, 1:-1, 1:-1] * net.b(y)

    net = Net(answer, bn=norm(), a=conv(1), b=conv(3, padding=0, c_out=1))
    becomes(scaled(net, MIXED), "into_consumer", "a", "b")


def test_a_norm_with_one_reader_that_cannot_take_it_is_kept_for_all() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(x).relu()
        return net.a(y) * y.sigmoid()

    kept_because(scaled(Net(answer, bn=norm(), a=conv(1)), MIXED), "(sigmoid), which it cannot pass")


HEADS: dict[str, list[nn.Module]] = {
    "adaptive": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)],
    "mean": [Net(lambda _, x: x.mean((2, 3))), nn.Linear(4, 3)],
    "every pixel": [nn.Flatten(), nn.Linear(144, 3)],
    "average": [nn.AvgPool2d(2), conv(1)],
    "tokens": [Net(lambda _, x: x.flatten(2).transpose(1, 2)), nn.Linear(4, 3)],
    "shuffle": [nn.ChannelShuffle(2), conv(1)],
    "bilinear": [nn.Upsample(scale_factor=2, mode="bilinear"), conv(1)],
    "part": [Net(lambda _, x: x[:, 1:3]), conv(1, 2)],
}


@pytest.mark.parametrize("head", HEADS)
def test_a_norm_goes_forward_to_the_head(head: str) -> None:
    net = nn.Sequential(norm(), nn.ReLU(), *HEADS[head])
    becomes(scaled(net, MIXED), "into_consumer", str(1 + len(HEADS[head])))


def test_a_norm_goes_into_the_readers_of_all_its_parts() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        left, right = net.bn(x).chunk(2, 1)
        return net.a(left) * net.b(right)

    net = Net(answer, bn=norm(), a=conv(1, 2), b=conv(1, 2))
    becomes(scaled(net, MIXED), "into_consumer", "a", "b")


def test_a_norm_whose_parts_meet_again_is_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        left, right = net.bn(x).chunk(2, 1)
        return net.conv(torch.cat([right, left], 1))

    kept_because(scaled(Net(answer, bn=norm(), conv=conv(1)), MIXED), "would have to take it twice")


def test_a_norm_goes_into_a_convolution_that_pads_with_a_map_of_the_border() -> None:
    becomes(scaled(nn.Sequential(norm(), conv()), MIXED), "into_consumer", "1")


def test_a_norm_and_its_activation_are_kept_before_a_convolution_that_pads() -> None:
    kept_because(scaled(nn.Sequential(norm(), nn.ReLU(), conv()), MIXED), "2 pads its input with zeros")


@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU()], ids=repr)
def test_a_norm_without_a_shift_goes_into_a_convolution_that_pads(activation: nn.Module) -> None:
    net = nn.Sequential(norm(), activation, conv())
    becomes(scaled(net, [1.5, -0.7, 0.3, 2.0], shift=False), "into_consumer", "2")


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("c_out", [4, 8])
def test_a_norm_goes_into_a_convolution_in_groups_without_padding(groups: int, c_out: int) -> None:
    last = conv(c_out=c_out, groups=groups, padding=0)
    becomes(scaled(nn.Sequential(norm(), nn.ReLU(), last), MIXED), "into_consumer", "2")


def test_a_norm_is_kept_before_a_transposed_convolution() -> None:
    kept_because(scaled(nn.Sequential(norm(), nn.ConvTranspose2d(4, 4, 2)), MIXED), "1 pads its input")


def test_a_norm_that_is_also_the_answer_is_kept() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        y = net.bn(x)
        net.conv(y)
        return y

    kept_because(scaled(Net(answer, bn=norm(), conv=conv(1)), MIXED), "the network's output")


def test_a_norm_behind_a_maximum_with_a_negative_scale_goes_forward_instead() -> None:
    net = scaled(nn.Sequential(conv(), nn.MaxPool2d(2), norm(), nn.ReLU(), conv(1)), MIXED)
    becomes(net, "into_consumer", "4")


def test_a_norm_is_kept_before_a_maximum_with_a_negative_scale() -> None:
    kept_because(scaled(nn.Sequential(norm(), nn.MaxPool2d(2), conv(1)), MIXED), "a negative scale turns")
    becomes(scaled(nn.Sequential(norm(), nn.MaxPool2d(2), conv(1)), POSITIVE), "into_consumer", "2")
