"""A fold that fails its check is undone and said to be; all others stay, and the answer is right."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph import fold
from service.graph.affine import Affine
from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.precision import astype
from service.graph.reference import Reference
from service.network.adopt import adopt

from .networks import Net, judged, normal, outcomes, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.graph import FoldReport
    from service.graph.chains import AffineChain
    from service.graph.parity import Parity
    from service.graph.surgery import Surgery

    Rule = Callable[[Surgery, AffineChain, int], tuple[str, ...]]

ROW = (4, 6, 6)
folding = importlib.import_module("service.graph.fold")  # `service.graph.fold` itself is the function


def conv(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **{"padding": kernel // 2, **options})


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4)


def mistaken(monkeypatch: pytest.MonkeyPatch, *names: str, by: float = 1.1) -> None:
    """Let every rule scale the norms of these names wrongly."""

    def wrong(rule: Rule) -> Rule:
        def tried(surgery: Surgery, chain: AffineChain, limit: int) -> tuple[str, ...]:
            if {norm.name for norm in chain.norms} & set(names):
                chain = replace(chain, affine=Affine(chain.affine.scale * by, chain.affine.shift))
            return rule(surgery, chain, limit)

        return tried

    rules = [(outcome, wrong(rule), words) for outcome, rule, words in folding.RULES]
    monkeypatch.setattr(folding, "RULES", rules)


def assert_undone(report: FoldReport, *names: str) -> None:
    """These norms are kept because their folds were undone; no other reason says so."""
    for layer in report.layers:
        if layer.name in names:
            assert (layer.outcome, layer.partner) == ("kept", None), layer
            assert layer.reason.startswith("the fold was undone: it changes the answers by")
        else:
            assert "undone" not in layer.reason, layer


def three() -> nn.Module:
    return trained(nn.Sequential(conv(), norm(), nn.ReLU(), conv(), norm(), nn.ReLU(), conv(), norm()))


@pytest.mark.parametrize("names", [["1"], ["4"], ["7"], ["1", "4"], ["1", "7"], ["1", "4", "7"]], ids=str)
def test_only_the_folds_that_are_wrong_are_undone(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, *names)
    report = judged(three(), *ROW)
    assert_undone(report, *names)
    assert [layer.outcome == "kept" for layer in report.layers] == [n in names for n in ("1", "4", "7")]


def test_the_only_fold_of_a_network_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "1")
    assert_undone(judged(trained(nn.Sequential(conv(), norm())), *ROW), "1")


def test_parity_holds_where_a_fold_was_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "4")
    parity = fold(three(), normal(2, *ROW)).report.parity
    assert parity is not None
    assert parity.holds
    assert parity.max_relative_error < 1e-6


@pytest.mark.parametrize("by", [1 + 1e-4, -1.0, 0.0, 1e6, float("nan")])
def test_small_and_large_mistakes_are_found(by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "4", by=by)
    report = judged(three(), *ROW)
    assert report.layers[1].outcome == "kept"
    assert [layer.outcome for layer in (report.layers[0], report.layers[2])] == ["into_producer"] * 2


def test_norms_in_a_row_are_undone_together(monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "1")
    net = trained(nn.Sequential(conv(), norm(), norm(), nn.ReLU(), conv(), norm()))
    assert outcomes(judged(net, *ROW)) == [
        ("1", "kept", None),
        ("2", "absorbed", "1"),
        ("5", "into_producer", "4"),
    ]


def test_a_wrong_fold_forward_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "0")
    net = trained(nn.Sequential(norm(), nn.ReLU(), conv(1), nn.ReLU(), norm(), conv(1)))
    report = judged(net, *ROW)
    assert_undone(report, "0")
    assert report.layers[1].outcome == "into_consumer"


def test_a_wrong_merging_of_a_norm_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    mistaken(monkeypatch, "bn")
    net = Net(
        lambda net, x: net.last_bn(net.last(net.conv(x) + net.bn(x))),
        conv=conv(),
        bn=norm(),
        last=conv(),
        last_bn=norm(),
    )
    report = judged(trained(net), *ROW)
    assert_undone(report, "bn")
    assert report.layers[1].outcome == "into_producer"


def two_branches() -> nn.Module:
    def answer(net: Any, x: Tensor) -> Any:
        return net.bn(net.a(x) + net.b(x)).relu() * net.other_bn(net.other(x)).sigmoid()

    return trained(Net(answer, a=conv(), b=conv(1), bn=norm(), other=conv(), other_bn=norm()))


def wrongly_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = folding.merge_siblings

    def wrong(surgery: Surgery) -> None:
        rule(surgery)
        for node in list(surgery.graph.nodes):
            if node.target is torch.ops.aten.relu.default:
                surgery.replace(node, node.args[0])

    monkeypatch.setattr(folding, "merge_siblings", wrong)


def test_a_wrong_merging_of_convolutions_is_undone_and_every_norm_still_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrongly_merged(monkeypatch)
    net = two_branches()
    assert [layer.outcome for layer in judged(net, *ROW).layers] == ["into_producer"] * 2
    graph = fold(net, normal(2, *ROW)).module.graph
    assert sum(node.target is torch.ops.aten.conv2d.default for node in graph.nodes) == 3


def test_a_wrong_merging_and_a_wrong_fold_are_both_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    wrongly_merged(monkeypatch)
    mistaken(monkeypatch, "other_bn")
    report = judged(two_branches(), *ROW)
    assert_undone(report, "other_bn")
    assert report.layers[0].outcome == "into_producer"


def test_a_step_that_no_norm_belongs_to_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(rule: Rule) -> Rule:
        def tried(surgery: Surgery, chain: AffineChain, limit: int) -> tuple[str, ...]:
            if not chain.norms:
                chain = replace(chain, affine=Affine(chain.affine.scale * 2, chain.affine.shift))
            return rule(surgery, chain, limit)

        return tried

    monkeypatch.setattr(folding, "RULES", [(o, wrong(rule), words) for o, rule, words in folding.RULES])
    net = Net(
        lambda net, x: net.b(net.last(net.a(net.conv(x)).relu() * net.gamma).relu()),
        conv=conv(),
        a=norm(),
        gamma=nn.Parameter(torch.ones(4, 1, 1)),
        last=conv(),
        b=norm(),
    )
    report = judged(trained(net), *ROW)
    assert [layer.outcome for layer in report.layers] == ["into_producer"] * 2


def test_a_fold_that_depends_on_a_wrong_one_is_right_once_that_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What follows an undone fold may go another way than with it."""
    mistaken(monkeypatch, "3")
    net = trained(nn.Sequential(norm(), nn.ReLU(), conv(1), norm(), nn.ReLU(), norm(), conv(1), norm()))
    report = judged(net, *ROW)
    assert_undone(report, "3")
    assert {layer.name: layer.outcome for layer in report.layers if layer.name != "3"} == {
        "0": "into_consumer",
        "5": "into_consumer",
        "7": "into_producer",
    }


# Natural causes: numbers that a rule does not survive.


@torch.no_grad()
def with_norm(net: nn.Sequential, at: int, eps: float | None = None, **values: Any) -> nn.Sequential:
    """`net` with other numbers in one norm: `weight`, `bias`, `running_mean`, `running_var`, `eps`."""
    norm = net[at]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps = norm.eps if eps is None else eps
    for name, value in values.items():
        norm.state_dict()[name].copy_(torch.as_tensor(value))
    return net


def test_weights_that_would_be_lost_are_not_folded() -> None:
    net = trained(nn.Sequential(conv(), norm(), Net(lambda _, x: x.sin()), conv(1), norm()))
    with_norm(net, 1, weight=1e-32, bias=0.0, running_mean=0.0)
    with torch.no_grad():
        net.get_parameter("3.weight").mul_(1e32)
    report = judged(net, *ROW)
    assert_undone(report, "1")
    assert report.layers[1].outcome == "into_producer"


def test_bounds_that_would_be_infinite_are_not_folded() -> None:
    net = trained(nn.Sequential(norm(), nn.ReLU(), conv(1), norm()))
    with_norm(net, 0, weight=[1e-29, 1e-29, 1.0, -1e-29], bias=[-1e10, 1e10, 1.0, -1e10])
    report = judged(net, *ROW)
    assert [layer.outcome for layer in report.layers] == ["kept", "into_producer"]


@pytest.mark.parametrize("variance", [float("inf"), 1e38, 1e-38, 0.0])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_extreme_variances_of_one_channel_fold(variance: float, place: str) -> None:
    layers = [conv(1), nn.ReLU(), norm()] if place == "behind" else [norm(), nn.ReLU(), conv(1)]
    at = 2 if place == "behind" else 0
    net = with_norm(trained(nn.Sequential(*layers)), at, running_var=[1.0, 0.5, variance, 2.0])
    (layer,) = judged(net, *ROW).layers
    assert layer.outcome in ("into_producer", "into_consumer")


def test_norms_with_an_eps_of_0_and_tiny_variances_fold() -> None:
    net = trained(nn.Sequential(conv(), norm(), nn.ReLU(), norm(), conv(1)))
    for at in (1, 3):
        with_norm(net, at, eps=0.0, running_var=[1e-12, 1.0, 1e-6, 2.0])
    assert judged(adopt(net), *ROW).kept == 0  # adopted: before 2.12 torch's own layer refuses that eps


def test_a_channel_without_a_number_that_nobody_reads_does_no_harm() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return net[2](net[1](net[0](x))[:, 1:].relu())

    class Sliced(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = answer(self, x)
            return y

    net = trained(Sliced(conv(), norm(), nn.Conv2d(3, 4, 1)))
    with_norm(net, 1, eps=0.0, running_var=[0.0, 1.0, 0.5, 2.0])
    assert judged(adopt(net), *ROW).norms == 1


# Precisions with a small range.


def in_precision(net: nn.Module, precision: torch.dtype) -> tuple[FoldReport, Parity]:
    """The report of a fold for a precision, and the parity of what it serves."""
    reference = Reference.of(capture(net, normal(2, *ROW)))
    folded = fold_graph(reference, precision)
    module = astype(folded.module, precision)
    return folded.report, reference.expected(precision).prove(lambda rows: module(rows.to(precision)))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_a_network_of_ordinary_numbers_folds_in_every_precision(precision: torch.dtype) -> None:
    report, parity = in_precision(three(), precision)
    assert [layer.outcome for layer in report.layers] == ["into_producer"] * 3
    assert parity.holds


def large_weights() -> nn.Module:
    net = trained(nn.Sequential(nn.AvgPool2d(1), norm(), nn.Hardtanh(-1e-4, 1e-4), conv(1)))
    with_norm(net, 1, weight=3e4, bias=0.0, running_mean=0.0, running_var=1.0)
    with torch.no_grad():
        net.get_parameter("3.weight").mul_(100)
    return net


def test_weights_that_would_overflow_are_not_folded_and_the_reason_says_so() -> None:
    report, parity = in_precision(large_weights(), torch.float16)
    (layer,) = report.layers
    assert layer.outcome == "kept"
    assert "the weights of 3 would overflow the serving precision" in layer.reason
    assert parity.holds


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_weights_are_folded_where_they_fit(precision: torch.dtype) -> None:
    report, parity = in_precision(large_weights(), precision)
    assert [layer.outcome for layer in report.layers] == ["into_consumer"]
    assert parity.holds


def test_a_bound_that_would_overflow_is_not_folded() -> None:
    net = trained(nn.Sequential(norm(), nn.ReLU(), conv(1)))
    with_norm(net, 0, weight=[1e-5, -1e-5, 1e-4, 1.0], bias=[-3.0, -2.0, -1.0, 1.0])
    report, parity = in_precision(net, torch.float16)
    assert parity.unfolded_relative_error < 1e-3
    assert parity.holds
    assert [layer.outcome for layer in report.layers] == ["kept"]


@pytest.mark.parametrize("is_difference", [True, False], ids=["difference", "sum"])
def test_convolutions_whose_sum_would_overflow_stay_two(is_difference: bool) -> None:
    def answer(net: Any, x: Tensor) -> Any:
        x = nn.functional.hardtanh(x, -1e-4, 1e-4)
        return net.a(x) - net.b(x) if is_difference else net.a(x) + net.b(x)

    net = trained(Net(answer, a=conv(1), b=conv(1)))
    with torch.no_grad():
        net.get_parameter("a.weight").fill_(4e4)
        net.get_parameter("b.weight").fill_(-4e4 if is_difference else 4e4)
    report, parity = in_precision(net, torch.float16)
    assert report.layers == ()
    assert parity.holds


def test_variances_that_overflow_half_precision_fold() -> None:
    net = trained(nn.Sequential(conv(), norm(), nn.ReLU(), conv()))
    with_norm(net, 1, running_var=[1e8, 1e9, 1e5, 7e4], running_mean=0.0, weight=1e4)
    report, parity = in_precision(net, torch.float16)
    assert [layer.outcome for layer in report.layers] == ["into_producer"]
    assert parity.holds
