"""The proof: what holds, what does not, and what is said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import ModelRefused
from service.graph.capture import CapturedGraph, capture
from service.graph.fold import fold_graph
from service.graph.parity import Disagreement, Parity, compare
from service.graph.precision import astype
from service.graph.probe import probe
from service.graph.reference import Reference

from .networks import Net, normal, trained

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = torch.tensor([[1.0, 3.0, -4.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
HALVES = [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)]


def compared(answers: Tensor, unfolded: Tensor = REFERENCE, dtype: torch.dtype = torch.float32) -> Parity:
    return compare(REFERENCE, answers, unfolded, dtype)


def captured() -> CapturedGraph:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return capture(trained(net), normal(2, 3, 6, 6))


def test_equal_answers_hold() -> None:
    parity = compared(REFERENCE.clone())
    assert parity == Parity(2, 0.0, 0.0, 1e-5, 1.0, ())
    assert parity.required() is parity


def test_errors_are_relative_to_the_largest_reference() -> None:
    answers = REFERENCE.clone()
    answers[0, 1] += 0.4
    parity = compared(answers, REFERENCE + 0.04)
    assert parity.max_relative_error == pytest.approx(0.1)
    assert parity.unfolded_relative_error == pytest.approx(0.01)
    assert parity.tolerance == pytest.approx(0.04)


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float32, 1e-5), *HALVES], ids=str)
def test_the_tolerance_has_a_floor_per_precision(dtype: torch.dtype, floor: float) -> None:
    assert compared(REFERENCE, dtype=dtype).tolerance == floor
    assert compared(REFERENCE, REFERENCE + floor, dtype).tolerance == pytest.approx(floor)


def test_an_error_at_the_tolerance_holds_and_one_above_does_not() -> None:
    unfolded = REFERENCE + 4 * 0.01
    assert compared(REFERENCE - 4 * 0.0399, unfolded).holds
    parity = compared(REFERENCE - 4 * 0.0401, unfolded)
    assert not parity.holds
    with pytest.raises(ModelRefused, match=r"parity failed: relative error 4\.01e-02 .* is over 4\.00e-02"):
        parity.required()


def test_a_disagreement_has_its_row_and_margin() -> None:
    answers = REFERENCE.clone()
    answers[1] = torch.tensor([1.0, 1.5, 0.0])
    parity = compared(answers)
    assert parity.disagreements == (Disagreement(row=1, expected=0, got=1, margin=0.25),)
    assert parity.top1_agreement == 0.5


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("unfolded_too", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_an_answer_that_is_no_finite_number_never_holds(
    broken: float, unfolded_too: bool, dtype: torch.dtype
) -> None:
    answers = REFERENCE.clone()
    answers[0, 0] = broken
    parity = compared(answers, answers if unfolded_too else REFERENCE, dtype)
    assert not parity.holds
    with pytest.raises(ModelRefused):
        parity.required()


def test_a_float16_network_whose_answers_overflow_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        net[0].weight.fill_(5e4)  # type: ignore[operator]
    graph = capture(net, normal(2, 3, 4, 4))
    half = astype(graph.module, torch.float16)
    assert not Reference.of(graph).expected(torch.float16).prove(lambda rows: half(rows.half())).holds


@pytest.mark.parametrize("answers", [torch.zeros(2, 2), torch.zeros(2, 3, 1), torch.zeros(1, 3)], ids=str)
def test_answers_of_another_shape_do_not_hold(answers: Tensor) -> None:
    assert not compared(answers).holds


def test_zero_answers_to_a_zero_reference_hold() -> None:
    zeros = torch.zeros(2, 3).double()
    assert compare(zeros, zeros, zeros, torch.float32).holds
    assert not compare(zeros, zeros + 1, zeros, torch.float32).holds


def test_one_number_a_row_can_be_compared() -> None:
    numbers = torch.tensor([1.0, 2.0]).double()
    assert compare(numbers, numbers, numbers, torch.float32).holds


def test_the_probe_is_the_same_every_time() -> None:
    graph = captured()
    assert probe(graph).shape == (2, 3, 6, 6)
    assert torch.equal(probe(graph), probe(graph))
    assert torch.equal(probe(graph, 3), probe(graph, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_rightly_folded_graph_holds(dtype: torch.dtype) -> None:
    graph = captured()
    folded = astype(fold_graph(Reference.of(graph)).module, dtype)
    parity = Reference.of(graph).expected(dtype).prove(lambda rows: folded(rows.to(dtype))).required()
    assert parity.rows == 2


def wrong_sign(weight: Tensor) -> Tensor:
    return -weight


def one_channel_unscaled(weight: Tensor) -> Tensor:
    return torch.cat([weight[:1] * 1.01, weight[1:]])


def channels_swapped(weight: Tensor) -> Tensor:
    return weight.flip(0)


@pytest.mark.parametrize("mistake", [wrong_sign, one_channel_unscaled, channels_swapped])
def test_a_wrongly_folded_graph_is_caught(mistake: Callable[[Any], Any]) -> None:
    graph = captured()
    folded = astype(fold_graph(Reference.of(graph)).module, torch.float32)
    name = next(name for name in dict(folded.named_buffers()) if name.endswith("conv2d_weight"))
    setattr(folded, name, mistake(getattr(folded, name)))
    parity = Reference.of(graph).expected(torch.float32).prove(folded)
    assert not parity.holds
    with pytest.raises(ModelRefused, match="parity failed"):
        parity.required()


def test_proving_changes_neither_the_rows_nor_the_graph() -> None:
    graph = captured()
    rows, before = probe(graph), str(graph.module.graph)
    Reference.of(graph, rows).expected(torch.float32).prove(graph.module)
    assert torch.equal(rows, probe(graph))
    assert str(graph.module.graph) == before


@pytest.mark.parametrize("wrong", [1, 3, 8])
def test_a_plan_that_is_wrong_in_one_batch_size_does_not_hold(wrong: int) -> None:
    graph = captured()

    def run(rows: Tensor) -> Tensor:
        answers: Tensor = graph.module(rows)
        return answers * (1.01 if len(rows) == wrong else 1)

    assert Reference.of(graph).expected(torch.float32).prove(graph.module, [1, 3, 8]).holds
    parity = Reference.of(graph).expected(torch.float32).prove(run, [1, 3, 8])
    assert (parity.holds, parity.rows) == (False, 2)


def test_an_answer_that_is_no_number_in_one_batch_size_does_not_hold() -> None:
    graph = captured()

    def run(rows: Tensor) -> Tensor:
        answers: Tensor = graph.module(rows)
        return answers * (float("nan") if len(rows) == 4 else 1)

    assert not Reference.of(graph).expected(torch.float32).prove(run, [8, 4, 1]).holds


def test_a_network_that_cannot_compute_one_row_is_refused() -> None:
    net = Net(
        lambda net, x: net.bn(net.conv(x).mean((2, 3)).squeeze()),
        conv=nn.Conv2d(3, 4, 1),
        bn=nn.BatchNorm1d(4),
    )
    with pytest.raises(ModelRefused, match="cannot compute one row alone"):
        Reference.of(capture(trained(net), normal(2, 3, 4, 4)))


def test_a_network_that_drops_the_batch_axis_of_one_row_is_refused_with_a_hint() -> None:
    net = Net(
        lambda net, x: net.last(net.conv(x).mean((2, 3)).squeeze()),
        conv=nn.Conv2d(3, 4, 1),
        last=nn.Linear(4, 2),
    )
    with pytest.raises(ModelRefused, match="squeeze"):
        Reference.of(capture(trained(net), normal(2, 3, 4, 4)))


def test_answers_that_were_computed_earlier_are_recalled() -> None:
    graph = captured()
    reference = Reference.of(graph)
    recalled = Reference.recalled(captured(), probe(graph), reference.answers.clone())
    assert recalled is not None
    assert torch.equal(recalled.answers, reference.answers)
    first, again = (known.expected(torch.float32).prove(graph.module) for known in (reference, recalled))
    assert first == again


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.0003, float("nan")])
def test_answers_that_the_network_does_not_give_are_not_recalled(factor: float) -> None:
    graph = captured()
    assert Reference.recalled(graph, probe(graph), factor * Reference.of(graph).answers) is None


def test_with_answers_of_something_else_a_wrong_fold_would_be_proven() -> None:
    """Why they must be recognised: the unfolded network's own error sets the tolerance."""
    graph = captured()
    others = Reference(graph, probe(graph), -Reference.of(graph).answers)
    assert others.expected(torch.float32).prove(lambda rows: 2 * graph.module(rows)).holds


def test_answers_of_a_network_with_batch_statistics_are_not_recalled_but_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    graph = capture(trained(net), normal(2, 3, 4, 4))
    with pytest.raises(ModelRefused, match="batch statistics"):
        Reference.recalled(graph, probe(graph), torch.zeros(2, 64).double())


def test_each_batch_size_is_asked_once() -> None:
    graph, asked = captured(), list[int]()

    def run(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        answers: Tensor = graph.module(rows)
        return answers

    Reference.of(graph).expected(torch.float32).prove(run, [8, 4, 2, 1])
    assert sorted(asked) == [1, 2, 4, 8]
