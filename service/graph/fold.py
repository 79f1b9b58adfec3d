"""Fold: every norm into a neighbour where that is exact; the rest kept as one scale and shift.

A pass is match (`affine.chains`), maths (`affine`, `linear`) and surgery (here). Nothing is changed
in place: every folded call gets its own weights, so shared modules and shared tensors are safe.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from service.errors import ModelRefused
from service.graph.affine import AffineChain, batch_statistics_norms, chains, module_name, value_users
from service.graph.capture import CapturedGraph, attribute, capture, source_nodes
from service.graph.constants import Constants
from service.graph.linear import LinearCall, set_weights
from service.graph.parity import probe, prove
from service.graph.precision import astype
from service.graph.report import FoldReport, NormOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

aten = torch.ops.aten


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


class _NotFoldable(Exception):
    """Why a chain stays, in words for the report."""


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
    graph = fx.Graph()
    graph.output(graph.graph_copy(captured.module.graph, {}))
    surgery = _Surgery(fx.GraphModule(captured.module, graph))
    surgery.refuse_batch_statistics()
    outcomes = [outcome for chain in surgery.chains() for outcome in surgery.settle(chain)]
    return FoldedGraph(surgery.finished(), FoldReport(tuple(_numbered(outcomes))))


class _Surgery:
    """The graph while it is being folded."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._graph = module.graph
        self._constants = Constants(module)
        # The mutable state beside the graph: where the value of a settled chain is read now.
        self._moved: dict[fx.Node, fx.Node] = {}

    def refuse_batch_statistics(self) -> None:
        dependent = [module_name(node) for node in batch_statistics_norms(self._graph, self._constants)]
        if dependent:
            raise ModelRefused(
                f"norms use batch statistics at inference ({', '.join(dependent)}): "
                "one caller's answer would depend on another's input"
            )

    def chains(self) -> list[AffineChain]:
        return chains(self._graph, self._constants)

    def settle(self, chain: AffineChain) -> Iterator[NormOutcome]:
        """Fold one chain, or write it as one scale and shift; say what became of its norms."""
        try:
            partner = self._fold_into_producer(chain)
            first = NormOutcome("", "into_producer", partner, f"scaled the weights of {partner}, its input")
        except _NotFoldable as why:
            first = NormOutcome("", "kept", None, str(why))
            if chain.norms:
                self._keep(chain)
        for name in chain.norms[:1]:
            yield replace(first, name=name)
        for name in chain.norms[1:]:
            reason = f"became one map with {chain.norms[0]} before it"
            yield NormOutcome(name, "absorbed", chain.norms[0], reason)

    def finished(self) -> fx.GraphModule:
        """The folded graph with what only depends on stored tensors evaluated, unused tensors left out."""
        for node in list(self._graph.nodes):
            is_read = any(user not in self._constants for user in node.users)
            if node.op == "call_function" and node in self._constants and is_read:
                with self._graph.inserting_before(node):
                    node.replace_all_uses_with(self._stored(node.name, self._constants.value(node)))
        self._graph.eliminate_dead_code()
        used = {str(node.target) for node in source_nodes(self._graph)}
        return fx.GraphModule({name: attribute(self._module, name) for name in used}, self._graph)

    def _fold_into_producer(self, chain: AffineChain) -> str:
        """Let the linear call before the chain compute the chain too; the answer is that call's name."""
        producer = self._moved.get(chain.input, chain.input)
        linear = self._linear_call(producer)
        if chain.axis not in (None, linear.axis):
            raise _NotFoldable(
                f"it acts on axis {chain.axis}, the output channels of {linear.name} on another"
            )
        weight, bias = linear.followed_by(chain.affine)
        with self._graph.inserting_before(producer):
            set_weights(
                producer,
                self._stored(f"{producer.name}_weight", weight),
                self._stored(f"{producer.name}_bias", bias),
            )
        self._replace(chain, producer)
        return linear.name

    def _linear_call(self, producer: fx.Node) -> LinearCall:
        """The call whose weights may be scaled for the one reader of its output."""
        if not LinearCall.is_one(producer):
            raise _NotFoldable(f"its input is {_described(producer)}, which has no weights to scale")
        readers = value_users(producer)
        if len(readers) > 1:
            listed = ", ".join(_described(reader) for reader in readers[:3])
            raise _NotFoldable(f"the output of {_described(producer)} has more than one reader: {listed}")
        linear = LinearCall.at(producer, self._constants)
        if linear is None:
            raise _NotFoldable(f"the weights of {_described(producer)} are computed from the input")
        return linear

    def _keep(self, chain: AffineChain) -> None:
        """Write the chain as one pass, `shift + x * scale`."""
        shape = [1] * chain.output.meta["val"].dim()
        if chain.axis is not None:
            shape[chain.axis] = -1
        name, source = chain.output.name, self._moved.get(chain.input, chain.input)
        with self._graph.inserting_before(chain.output):
            scale = self._stored(f"{name}_scale", chain.affine.scale.reshape(shape))
            shift = self._stored(f"{name}_shift", chain.affine.shift.reshape(shape))
            kept = self._graph.call_function(aten.addcmul.default, (shift, source, scale))
        kept.meta = dict(chain.output.meta)
        self._replace(chain, kept)

    def _replace(self, chain: AffineChain, value: fx.Node) -> None:
        chain.output.replace_all_uses_with(value)
        self._moved[chain.output] = value
        self._erase_unread(chain.output)

    def _erase_unread(self, node: fx.Node) -> None:
        sources = node.all_input_nodes
        self._graph.erase_node(node)
        for source in sources:
            if not source.users and source.op == "call_function":
                self._erase_unread(source)

    def _stored(self, name: str, value: Tensor) -> fx.Node:
        """A node that reads `value`, stored under a name that no module of the network has."""
        target = f"_folded_{name}"
        self._module.register_buffer(target, value)
        node = self._graph.get_attr(target)
        node.meta["val"] = value
        return node


def _described(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the network's input"
    if node.op == "output":
        return "the network's output"
    kind = str(getattr(node.target, "_opname", node.name))
    return f"{module_name(node)} ({kind})"


def _numbered(outcomes: Iterable[NormOutcome]) -> Iterator[NormOutcome]:
    """A module that is called again is named `name@1`, `name@2`, as torch.export names it."""
    calls: Counter[str] = Counter()
    for outcome in outcomes:
        call = calls[outcome.name]
        calls[outcome.name] += 1
        yield replace(outcome, name=f"{outcome.name}@{call}") if call else outcome
