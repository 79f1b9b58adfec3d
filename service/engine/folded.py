"""The folded network of a stored version, and what is still asked of it behind its fold."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine import watching
from service.engine.layers import Layers
from service.graph.fold import fold_graph
from service.graph.precision import astype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import fx

    from service.engine.stopwatch import Stopwatch
    from service.engine.unfolded import Origin, Unfolded
    from service.engine.watching import Wanted, Watching
    from service.graph.reference import Expected
    from service.graph.report import FoldReport
    from service.network.batch_norm import BatchNorm
    from service.plan.plan import Precision
    from service.store.model_store import StoredModel

log = logging.getLogger("foldserve.engine")


@dataclass(frozen=True)
class Folded:
    """What is known of it, without the graph, which is the plan's."""

    report: FoldReport
    expected: Expected
    """What the plan must answer."""
    origin: Origin
    """Of the reference answers."""
    layers: Layers
    watching: Watching | None
    """What looks at live rows; None where nothing does."""


def fold(
    stored: StoredModel,
    read: Callable[[StoredModel, Stopwatch], Unfolded],
    computed: Precision,
    precision: str,
    step: Stopwatch,
    device: torch.device,
    watch: Wanted | None,
) -> tuple[fx.GraphModule, Folded]:
    """Read a version and fold it: the folded graph in the precision `computed`, which `precision` names.

    Of the unfolded network nothing is kept but what `watch` asks for. Raises what `read` does, and
    `ModelRefused`.
    """
    source = read(stored, step)
    with step("fold"):
        folded = fold_graph(source.reference, computed.dtype)
        expected = source.reference.expected(computed.proven_as)
    with step("layers"):
        layers = Layers.of(source, folded, computed, precision)
    with step("fold"):
        origin = source.origin
        watched = _watched(stored, source, layers.norms, device, watch) if watch else None
        del source
        # Graphs and their modules hold each other: without a collection three copies of the weights would
        # lie beside the plan's own.
        gc.collect()
        graph, report = astype(folded.module, computed.dtype), folded.report
        del folded
        gc.collect()
    return graph, Folded(report, expected, origin, layers, watched)


def _watched(
    stored: StoredModel,
    source: Unfolded,
    called: Mapping[str, BatchNorm],
    device: torch.device,
    wanted: Wanted,
) -> Watching | None:
    """What looks at live rows; None where that cannot be, which is no reason not to serve."""
    try:
        return watching.of(stored, source.reference.captured, called, device, wanted)
    except Exception:
        log.exception("%s: live rows are not looked at", stored)
        return None
