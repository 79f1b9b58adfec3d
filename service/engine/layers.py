"""The layers of a model card: what is said of each norm of a loaded network, or of one that was refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from service.engine import memory, unfolded
from service.engine.stopwatch import Stopwatch
from service.errors import ModelRefused
from service.graph.layer_errors import LayerError, layer_errors
from service.graph.losses import losses
from service.graph.readers import activations
from service.graph.written_norms import written_norms
from service.inspection.flag import Lost, Surroundings
from service.inspection.flags import flags
from service.inspection.layer_stats import DERIVED, STORED, LayerStats, summary, with_derived
from service.network.adopt import norms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from service.engine.unfolded import Unfolded
    from service.graph.capture import CapturedGraph
    from service.graph.fold import FoldedGraph
    from service.graph.losses import Losses
    from service.graph.report import NormOutcome
    from service.inspection.thresholds import Thresholds
    from service.network.batch_norm import BatchNorm
    from service.plan.plan import Precision
    from service.store.model_store import StoredModel

_NOT_CALLED = "the network does not call it at inference"


@dataclass(frozen=True)
class Layers:
    """The norms of a network by name, with what its graph says about them."""

    norms: Mapping[str, BatchNorm]
    around: Mapping[str, Surroundings] = field(default_factory=dict)
    errors: Mapping[str, LayerError] = field(default_factory=dict)

    @staticmethod
    def of(source: Unfolded, folded: FoldedGraph, computed: Precision, precision: str) -> Layers:
        """The norms of a network that was folded; `precision` is the name of what it is computed in."""
        captured = source.reference.captured
        lost = losses(captured, folded, computed.dtype)
        behind = activations(captured)
        around = {
            name: Surroundings(behind.get(name), _lost(lost.get(name), precision))
            for name in {*behind, *lost}
        }
        return Layers(
            _norms(source.network, captured), around, layer_errors(source.reference, folded, computed.dtype)
        )

    @property
    def vectors(self) -> dict[str, dict[str, np.ndarray]]:
        """The stored vectors of every norm."""
        return {name: _vectors(norm) for name, norm in self.norms.items()}

    def stats(self, outcomes: Sequence[NormOutcome], thresholds: Thresholds) -> list[LayerStats]:
        """One entry per norm: in the network's order, those that it never calls at the end."""
        by_name = {outcome.name: outcome for outcome in outcomes}
        called = [name for name in by_name if name in self.norms]
        unused = [name for name in self.norms if name not in by_name]
        return [self._layer(name, by_name.get(name), thresholds) for name in called + unused]

    def _layer(self, name: str, outcome: NormOutcome | None, thresholds: Thresholds) -> LayerStats:
        norm, vectors = self.norms[name], _vectors(self.norms[name])
        shown, error = with_derived(vectors, norm.eps), self.errors.get(name)
        around, tracked = self.around.get(name, Surroundings()), norm.num_batches_tracked
        return LayerStats(
            name=name,
            num_features=norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
            num_batches_tracked=None if tracked is None else int(tracked),
            outcome=outcome.outcome if outcome else None,
            partner=outcome.partner if outcome else None,
            reason=outcome.reason if outcome else _NOT_CALLED,
            activation=around.activation,
            folding_error=error.error if error else None,
            folding_error_at=error.at if error else None,
            flags=flags(vectors, norm.eps, around, thresholds),
            **{kind: summary(shown.get(kind)) for kind in STORED + DERIVED},
        )


def of_refused(
    stored: StoredModel, thresholds: Thresholds
) -> tuple[list[LayerStats], dict[str, dict[str, np.ndarray]]]:
    """What can be said of the norms of a network that is not served: all but what folding made of them.

    Raises `StoreError` where there is nothing to read, and `ModelRefused` where it does not fit into memory.
    """
    memory.require_room(stored, memory.free_bytes())
    network = unfolded.built(stored, Stopwatch())
    try:
        captured = unfolded.captured(stored, network)
        behind = {name: Surroundings(kind) for name, kind in activations(captured).items()}
        layers = Layers(_norms(network, captured), behind)
    except ModelRefused:
        layers = Layers(norms(network))
    return [_not_folded(layer) for layer in layers.stats((), thresholds)], layers.vectors


def _not_folded(layer: LayerStats) -> LayerStats:
    return layer.model_copy(update={"reason": "nothing was folded, since the model is refused"})


def _norms(network: torch.nn.Module, captured: CapturedGraph) -> dict[str, BatchNorm]:
    """All norms of a network, those written out by hand behind the others."""
    found = norms(network)
    return found | written_norms(captured, found)


def _lost(found: Losses | None, precision: str) -> Lost | None:
    if found is None:
        return None
    counts = (found.overflowing.numpy(), found.vanishing.numpy(), found.nonzero.numpy())
    return Lost(found.host, precision, *counts, is_own=found.is_own)


def _vectors(norm: BatchNorm) -> dict[str, np.ndarray]:
    """The stored vectors of a norm; bfloat16, which numpy has not, as float32."""
    named = {name: getattr(norm, name) for name in STORED}
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in named.items()
        if tensor is not None
    }
