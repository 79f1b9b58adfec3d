"""Loading: one straight line from a stored version to a warm, proven plan and its model card."""

from __future__ import annotations

import gc
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from service.engine import allocator, golden, memory, unfolded
from service.engine.card import ModelCard, ModelFacts, WatchedLayer
from service.engine.folded import fold
from service.engine.stopwatch import Stopwatch
from service.errors import InvalidManifest
from service.inspection.thresholds import Thresholds
from service.plan import bucket, tuning
from service.plan.device import describe, free_bytes, use_threads
from service.plan.pixels import pixel_probe, require_same
from service.plan.plan import PRECISIONS, Plan, Precision, lower
from service.plan.preprocessing import Preprocessing
from service.plan.threads import worthwhile

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx

    from service.engine.unfolded import Unfolded
    from service.engine.watching import Wanted, Watching
    from service.store.model_store import StoredModel

_TIMED_ROWS = 8
DEFAULTS = Thresholds()


@dataclass(frozen=True)
class Loaded:
    """A version that may be served."""

    plan: Plan
    card: ModelCard
    watching: Watching | None = None
    """What looks at its live rows; None where nothing does."""


def load(
    stored: StoredModel,
    device: torch.device,
    *,
    precision: str | None = None,
    max_batch: int | None = None,
    threads: int = 0,
    tune: bool = False,
    free: float | None = None,
    check_golden: bool = True,
    thresholds: Thresholds = DEFAULTS,
    watch: Wanted | None = None,
    read: Callable[[StoredModel, Stopwatch], Unfolded] = unfolded.read,
) -> Loaded:
    """Read, build, capture, fold, lower, prove and warm up; `None` means what the manifest says.

    On a CPU the plan runs on torch's number of threads; where `threads`, the number that somebody asked for,
    is 0, on no more than its rows keep busy. With `tune` it is measured how many, up to that, suit it.
    Where `max_batch` is None, a CPU computes fewer rows at once than the manifest allows where more
    would be slower. `precision` is one of `PRECISIONS`. Raises `InvalidConfiguration` for one that the
    device has not got, `StoreError` for what is wrong on disk and `ModelRefused` for a network that must
    not be served: one that does not fit into the `free` bytes (None: into what the machine and the device
    have left), norms with batch statistics, or parity that does not hold, be it on the golden inputs, which
    are looked at unless `check_golden` is False. Health flags, whose limits are `thresholds`, refuse nothing.
    With `watch` what of the network looks at live rows is kept. Whoever has read the version already gives it
    with `read`, and keeps no hold of it.
    """
    manifest, step = stored.manifest, Stopwatch()
    precision = precision or manifest.serving.precision
    computed = PRECISIONS[precision].on(device)
    memory.require_room(stored, memory.free_bytes() if free is None else free, free_bytes(device))
    labels = stored.labels()
    with allocator.giving_back():
        graph, folded = fold(stored, read, computed, precision, step, device, watch)
        with step("tune" if tune else "lower"):
            if device.type == "cpu" and not threads and not tune:
                use_threads(worthwhile(graph.graph, torch.get_num_threads()))
            plan = _lowered(stored, graph, computed, device, max_batch, tune=tune)
            del graph
            gc.collect()
    with step("parity"):
        parity = folded.expected.prove(plan, plan.buckets()).required()
    with step("warm-up"):
        row = pixel_probe(manifest.input.shape)
        answer = plan(_preprocessing(stored).normalised(row.unsqueeze(0)))
        largest = float(folded.expected.answers.abs().max())
        require_same(answer, plan.warm_up(row), parity.tolerance, largest)  # network inputs are warm by now
        seconds_per_row = _seconds_per_row(plan, row)
        output_shape = list(answer.shape[1:])
    _check_output(stored, output_shape, labels)
    checked = golden.check(stored, plan, computed.proven_as, step) if check_golden else None
    report = folded.report.with_proof(parity, step.seconds, checked)
    facts = ModelFacts(
        model=stored.name,
        version=stored.version,
        manifest=manifest,
        labels=None if labels is None else list(labels),
        output_shape=output_shape,
        device=describe(device),
        precision=precision,
        max_batch=plan.max_batch,
        seconds_per_row=seconds_per_row,
        threads=plan.threads,
        tuned=tune and device.type == "cpu",
        preprocessing=plan.preprocessing,
        memory=plan.memory | ({"drift": folded.watching.observation.nbytes} if folded.watching else {}),
        torch_version=torch.__version__,
        layers=folded.layers.stats(report.layers, thresholds),
        fold=report.as_dict(),
        reference=folded.origin,
        plan=[asdict(step) for step in plan.programs[-1].steps],
        seconds=step.seconds,
        **(_said_of(folded.watching) if folded.watching else {}),
    )
    baseline = folded.watching and folded.watching.baseline
    card = ModelCard(facts, folded.layers.vectors, baseline.of_rows() if baseline else {})
    return Loaded(plan, card, folded.watching)


def _said_of(watching: Watching) -> dict[str, Any]:
    """What the card says of the norms that are watched."""
    norms = watching.watched.norms
    return {
        "watched": [
            WatchedLayer(name=norm.name, part=norm.part, rows=norm.rows, has_pixels=norm.has_pixels)
            for norm in norms
        ],
        "moments_shape": [2, len(watching.watched.mean)],
    }


def _lowered(
    stored: StoredModel,
    graph: fx.GraphModule,
    computed: Precision,
    device: torch.device,
    max_batch: int | None,
    *,
    tune: bool,
) -> Plan:
    most = stored.manifest.serving.max_batch
    make = partial(
        lower,
        graph,
        _preprocessing(stored),
        precision=computed.dtype,
        allow_tf32=computed.allow_tf32,
        device=device,
        max_batch=max_batch or bucket.largest(graph.graph, most, precision=computed.dtype, device=device),
    )
    row = pixel_probe(stored.manifest.input.shape)
    return tuning.quickest(make, row) if tune and device.type == "cpu" else make()


def _seconds_per_row(plan: Plan, row: Tensor) -> float:
    """How long a row of pixels takes, in a batch that is no single row and takes no long time."""
    rows = row.repeat(min(plan.max_batch, _TIMED_ROWS), *[1] * row.dim())
    started = time.monotonic()
    plan(rows)
    return (time.monotonic() - started) / len(rows)


def _preprocessing(stored: StoredModel) -> Preprocessing:
    return Preprocessing(stored.manifest.input.mean, stored.manifest.input.std)


def _check_output(stored: StoredModel, shape: list[int], labels: tuple[str, ...] | None) -> None:
    if stored.manifest.output.task == "classification" and len(shape) != 1:
        raise InvalidManifest(f"{stored}: a classification answers one vector a row, this network {shape}")
    if labels is not None and [len(labels)] != shape:
        raise InvalidManifest(f"{stored}: {len(labels)} labels for an answer of shape {shape}")
