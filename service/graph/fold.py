"""Fold: every norm into a neighbour where that is exact; the rest kept as one scale and shift.

A pass is match (`chains`), maths (`affine`, `linear`, `movement`, `pointwise`) and surgery. Nothing
is changed in place: every folded call gets its own weights, so shared modules and shared tensors
are safe.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph.backward import into_producers
from service.graph.branches import into_sibling
from service.graph.capture import CapturedGraph, capture, module_name
from service.graph.chains import AffineChain, NormCall, batch_statistics_norms, chains
from service.graph.forward import into_consumers
from service.graph.parity import probe, prove
from service.graph.precision import astype
from service.graph.report import FoldReport, NormOutcome, Outcome
from service.graph.surgery import NotFoldable, Surgery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, fx, nn

    Rule = Callable[[Surgery, AffineChain], tuple[str, ...]]

# The rules in the order in which they are tried, each on all norms before the next.
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
    folded = fold_graph(captured)
    rounded = astype(folded.module, torch.float32)
    times.append(time.perf_counter())
    parity = prove(captured, rounded, torch.float32, probe(captured)).required()
    times.append(time.perf_counter())
    steps = ("capture", "fold", "parity")
    seconds = {step: end - start for step, start, end in zip(steps, times, times[1:], strict=False)}
    return FoldedNetwork(rounded, folded.report.with_proof(parity, seconds))


def fold_graph(captured: CapturedGraph) -> FoldedGraph:
    """Fold every norm of a captured graph; the captured graph is not changed."""
    surgery = Surgery(captured)
    _refuse_batch_statistics(surgery)
    found = chains(surgery.graph, surgery.constants)
    settled = _settled(surgery, found)
    outcomes = [outcome for chain in found for outcome in _outcomes(chain, settled[chain.output])]
    return FoldedGraph(surgery.finished(), FoldReport(tuple(_one_each(outcomes))))


def _refuse_batch_statistics(surgery: Surgery) -> None:
    dependent = [
        module_name(node) or node.name for node in batch_statistics_norms(surgery.graph, surgery.constants)
    ]
    if dependent:
        raise ModelRefused(
            f"norms use batch statistics at inference ({', '.join(dependent)}): "
            "one caller's answer would depend on another's input"
        )


def _settled(surgery: Surgery, found: list[AffineChain]) -> dict[fx.Node, NormOutcome]:
    """Fold the chains, or keep them; what became of each, by its output."""
    settled: dict[fx.Node, NormOutcome] = {}
    reasons: dict[fx.Node, list[str]] = {chain.output: [] for chain in found}
    for outcome, rule, words in RULES:
        for chain in found:
            if chain.output in settled:
                continue
            try:
                partner = ", ".join(rule(surgery, chain))
                settled[chain.output] = NormOutcome("", outcome, partner, words.format(partner))
            except NotFoldable as why:
                reasons[chain.output].append(str(why))
    for chain in found:
        if chain.output not in settled:
            settled[chain.output] = NormOutcome("", "kept", None, "; ".join(reasons[chain.output]))
            if chain.norms:
                value = surgery.current(chain.input)
                surgery.replace(chain.output, surgery.write_affine(value, chain.affine, chain.output))
    return settled


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
