"""Fold: every norm into a neighbour where that is exact; the rest kept as one scale and shift.

A pass is match (`chains`), maths (`affine`, `linear`, `movement`, `pointwise`) and surgery. Nothing
is changed in place: every folded call gets its own weights, so shared modules and shared tensors
are safe.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph import price
from service.graph.backward import into_producers
from service.graph.branches import into_sibling, merge_siblings
from service.graph.capture import CapturedGraph, capture
from service.graph.chains import AffineChain, NormCall, chains
from service.graph.forward import into_consumers
from service.graph.precision import astype
from service.graph.reference import Reference
from service.graph.report import FoldReport, NormOutcome, Outcome
from service.graph.samples import Samples
from service.graph.solitude import one_at_a_time
from service.graph.surgery import NotFoldable, Surgery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor, fx, nn

    Rule = Callable[[Surgery, AffineChain, int], tuple[str, ...]]

# The rules in the order in which they are tried, each on all norms before the next; first where they cost
# nothing, then where they cost no more than the norm does.
RULES: list[tuple[Outcome, Rule, str]] = [
    ("into_producer", into_producers, "scaled the weights of {}, its input"),
    ("merged_branch", into_sibling, "added to the kernel of {}, which it is summed with"),
    ("into_consumer", into_consumers, "scaled the weights of {}, which its output goes into"),
]


@dataclass(frozen=True)
class FoldedGraph:
    """The folded graph: `module` holds float64 where a tensor changed, the stored dtype elsewhere."""

    module: fx.GraphModule
    report: FoldReport
    flushed: Mapping[str, Tensor]
    """By the name of a call's node, of its shape, which of its weights were not 0, but too small to keep."""
    places: Mapping[str, tuple[str, str | None]]
    """By a norm's name the nodes, of the captured graph and of the folded one, that hold what its chain
    computes; None where the chain went into what reads it."""
    exact: Mapping[str, Tensor] = field(default_factory=dict)
    """By the names of these nodes of the folded graph, and of its answer, samples of their values in float64
    for the reference's first row."""

    @property
    def places_now(self) -> list[str]:
        """The names of the folded graph's nodes that hold a norm's output, or the answer."""
        (answer,) = self.module.graph.output_node().all_input_nodes
        return [*(now for _, now in self.places.values() if now), answer.name]


@dataclass(frozen=True)
class FoldedNetwork:
    """What the library call `fold` answers."""

    module: fx.GraphModule
    """Callable on float32 `[N, ...]`, any N."""
    report: FoldReport


def fold(module: nn.Module, example: Tensor) -> FoldedNetwork:
    """Fold the norms of `module` away and prove it; `module` itself is not changed.

    `example` is one batch of network inputs, float32 `[N, ...]`. Raises `ModelRefused` where the
    network cannot be captured, uses batch statistics at inference, or fails parity.
    """
    times = [time.perf_counter()]
    captured = capture(module, example)
    times.append(time.perf_counter())
    reference = Reference.of(captured)
    times.append(time.perf_counter())
    folded = fold_graph(reference)
    rounded = astype(folded.module, torch.float32)
    times.append(time.perf_counter())
    parity = reference.expected(torch.float32).prove(rounded).required()
    times.append(time.perf_counter())
    steps = ("capture", "reference", "fold", "parity")
    seconds = {step: end - start for step, start, end in zip(steps, times, times[1:], strict=False)}
    return FoldedNetwork(rounded, folded.report.with_proof(parity, seconds))


def fold_graph(reference: Reference, precision: torch.dtype = torch.float32) -> FoldedGraph:
    """Fold every norm of a captured graph for serving in `precision`; the captured graph is not changed.

    What is folded is checked in float64 against the reference, and a fold that fails is undone and
    said to be.
    """
    undone: dict[int, str] = {}
    while True:
        folded = _folded(reference.captured, precision, undone)
        samples = Samples(folded.places_now, len(reference.rows))
        mistake = reference.mistake_of(folded.module, samples)
        if mistake is None:
            return replace(folded, exact=samples.values)
        undone[_culprit(reference, precision, undone)] = f"the fold was undone: {mistake}"


def _culprit(reference: Reference, precision: torch.dtype, undone: dict[int, str]) -> int:
    """The step without which, and without all later ones, the graph is right: by bisection."""
    right, wrong = 0, _steps(reference.captured)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        later = dict.fromkeys(range(middle, _steps(reference.captured)), "not tried")
        folded = _folded(reference.captured, precision, {**undone, **later})
        right, wrong = (middle, wrong) if reference.mistake_of(folded.module) is None else (right, middle)
    if right in undone:
        raise ModelRefused("the graph is wrong with every fold undone")
    return right


@one_at_a_time()
def _steps(captured: CapturedGraph) -> int:
    """The chains of the graph, and the merging of parallel convolutions behind them."""
    surgery = Surgery(captured)
    return len(chains(surgery.graph, surgery.constants)) + 1


@one_at_a_time()
def _folded(captured: CapturedGraph, precision: torch.dtype, undone: dict[int, str]) -> FoldedGraph:
    """The fold in all its steps but the undone ones."""
    surgery = Surgery(captured, precision)
    found = chains(surgery.graph, surgery.constants)
    kept = {chain.output: undone[number] for number, chain in enumerate(found) if number in undone}
    settled = _settled(surgery, found, kept)
    if len(found) not in undone:
        merge_siblings(surgery)
    outcomes = [outcome for chain in found for outcome in _outcomes(chain, settled[chain.output])]
    places = {norm.name: _place(surgery, chain, settled) for chain in reversed(found) for norm in chain.norms}
    report = FoldReport(tuple(_one_each(outcomes)))
    return FoldedGraph(surgery.finished(), report, surgery.flushed, places)


def _place(
    surgery: Surgery, chain: AffineChain, settled: dict[fx.Node, NormOutcome]
) -> tuple[str, str | None]:
    is_gone = settled[chain.output].outcome == "into_consumer"
    return chain.output.name, None if is_gone else surgery.current(chain.output).name


def _settled(
    surgery: Surgery, found: list[AffineChain], undone: dict[fx.Node, str]
) -> dict[fx.Node, NormOutcome]:
    """Fold the chains, or keep them; what became of each, by its output."""
    settled: dict[fx.Node, NormOutcome] = {}
    pending = [chain for chain in found if chain.output not in undone]
    reasons: dict[fx.Node, list[str]] = {}
    while pending:
        reasons = _one_round(surgery, pending, lambda _: 0, settled)
        if not any(chain.output in settled for chain in pending):
            reasons = _one_round(surgery, pending, price.of_norm, settled)
        if not any(chain.output in settled for chain in pending):
            break
        pending = [chain for chain in pending if chain.output not in settled]
    for chain in found:
        if chain.output not in settled:
            why = undone.get(chain.output) or "; ".join(reasons[chain.output])
            settled[chain.output] = NormOutcome("", "kept", None, why)
            if chain.norms:
                value = surgery.current(chain.input)
                surgery.replace(chain.output, surgery.write_affine(value, chain.affine, chain.output))
    return settled


def _one_round(
    surgery: Surgery,
    pending: list[AffineChain],
    limit: Callable[[AffineChain], int],
    settled: dict[fx.Node, NormOutcome],
) -> dict[fx.Node, list[str]]:
    """Try every rule on every chain; the reasons why those that are left could not go."""
    reasons: dict[fx.Node, list[str]] = {chain.output: [] for chain in pending}
    for outcome, rule, words in RULES:
        # A norm in the way of an earlier one is out of it when the later one goes first.
        for chain in reversed(pending) if outcome == "into_consumer" else pending:
            if chain.output in settled:
                continue
            try:
                partner = ", ".join(rule(surgery, chain, limit(chain)))
                settled[chain.output] = NormOutcome("", outcome, partner, words.format(partner))
            except NotFoldable as why:
                reasons[chain.output].append(str(why))
    return reasons


def _outcomes(chain: AffineChain, first: NormOutcome) -> Iterator[tuple[NormCall, NormOutcome]]:
    for norm in chain.norms[:1]:
        yield norm, replace(first, name=norm.name)
    for norm in chain.norms[1:]:
        head = chain.norms[0].name
        yield norm, NormOutcome(norm.name, "absorbed", head, f"became one map with {head} before it")


def _one_each(outcomes: Iterable[tuple[NormCall, NormOutcome]]) -> Iterator[NormOutcome]:
    """One outcome for every call: a norm that is folded in one part and kept in another is kept.

    A module that is called again is named `name@1`, `name@2`, as torch.export names it.
    """
    found: dict[NormCall, NormOutcome] = {}
    for norm, outcome in outcomes:
        if norm not in found or outcome.outcome == "kept":
            found[norm] = outcome
    calls: Counter[str] = Counter()
    for norm, outcome in found.items():
        call = calls[norm.name]
        calls[norm.name] += 1
        yield replace(outcome, name=f"{norm.name}@{call}") if call else outcome
