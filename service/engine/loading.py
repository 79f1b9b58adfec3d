"""Loading: one straight line from a stored version to a warm, proven plan and its model card."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from service.engine.card import ModelCard, ModelFacts
from service.errors import InvalidManifest
from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.parity import Reference, pixel_probe, prove, require_same
from service.inspection.layer_stats import DERIVED, STORED, LayerStats, summary, with_derived
from service.network import catalog
from service.network.adopt import norms
from service.plan import tuning
from service.plan.device import describe
from service.plan.plan import PRECISIONS, Plan, lower
from service.plan.preprocessing import Preprocessing
from service.store import weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from service.graph.report import FoldReport, NormOutcome
    from service.network.batch_norm import BatchNorm
    from service.store.manifest import Precision
    from service.store.model_store import StoredModel


@dataclass(frozen=True)
class Loaded:
    """A version that may be served."""

    plan: Plan
    card: ModelCard


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - started


def load(
    stored: StoredModel,
    device: torch.device,
    *,
    precision: Precision | None = None,
    max_batch: int | None = None,
    tune: bool = False,
) -> Loaded:
    """Read, build, capture, fold, lower, prove and warm up; `None` means what the manifest says.

    With `tune` it is measured before the proof how many threads, up to torch's number, suit each bucket.

    Raises `StoreError` for what is wrong on disk and `ModelRefused` for a network that must not be
    served: norms with batch statistics, or parity that does not hold.
    """
    manifest, step = stored.manifest, _Stopwatch()
    on, threads = describe(device), torch.get_num_threads()
    labels = stored.labels()
    dtype = PRECISIONS[precision or manifest.serving.precision]
    with step("read"):
        tensors = weights.read(stored)
    with step("build"):
        network = catalog.build(manifest.architecture, manifest.options)
        weights.assign(network, tensors)
    with step("capture"):
        captured = capture(network, torch.zeros(2, *manifest.input.shape))
    with step("reference"):
        reference = Reference.of(captured)
    with step("fold"):
        folded = fold_graph(reference, dtype)
    with step("lower"):
        preprocessing = Preprocessing(manifest.input.mean, manifest.input.std)
        plan = lower(
            folded.module,
            preprocessing,
            precision=dtype,
            device=device,
            max_batch=max_batch or manifest.serving.max_batch,
        )
    row = pixel_probe(manifest.input.shape)
    if tune:
        with step("tune"):
            plan.threads = tuning.tune(plan, row, threads)
    with step("parity"):
        parity = prove(reference, plan, dtype, plan.buckets()).required()
    with step("warm-up"):
        answer = plan(preprocessing.normalised(row.unsqueeze(0)))
        require_same(answer, plan.warm_up(row), parity.tolerance)  # network inputs are warm by now
        output_shape = list(answer.shape[1:])
    _check_output(stored, output_shape, labels)
    report = folded.report.with_proof(parity, step.seconds)
    vectors = {name: _vectors(norm) for name, norm in norms(network).items()}
    facts = ModelFacts(
        model=stored.name,
        version=stored.version,
        manifest=manifest,
        labels=None if labels is None else list(labels),
        output_shape=output_shape,
        device=on,
        precision=precision or manifest.serving.precision,
        max_batch=plan.max_batch,
        threads=dict(plan.threads) or ({plan.max_batch: threads} if device.type == "cpu" else {}),
        tuned=bool(plan.threads),
        preprocessing=plan.preprocessing,
        torch_version=torch.__version__,
        layers=_layers(norms(network), vectors, report),
        fold=report.as_dict(),
        plan=[asdict(step) for step in plan.steps],
        seconds=step.seconds,
    )
    return Loaded(plan, ModelCard(facts, vectors))


def _check_output(stored: StoredModel, shape: list[int], labels: tuple[str, ...] | None) -> None:
    if stored.manifest.output.task == "classification" and len(shape) != 1:
        raise InvalidManifest(f"{stored}: a classification answers one vector a row, this network {shape}")
    if labels is not None and [len(labels)] != shape:
        raise InvalidManifest(f"{stored}: {len(labels)} labels for an answer of shape {shape}")


def _vectors(norm: BatchNorm) -> dict[str, np.ndarray]:
    """The stored vectors of a norm; bfloat16, which numpy has not, as float32."""
    named = {name: getattr(norm, name) for name in STORED}
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in named.items()
        if tensor is not None
    }


def _layers(
    norms_by_name: Mapping[str, BatchNorm], vectors: Mapping[str, dict[str, np.ndarray]], report: FoldReport
) -> list[LayerStats]:
    """One entry per norm: in the network's order, those that it never calls at the end."""
    outcomes = {outcome.name: outcome for outcome in report.layers}
    called = [name for name in outcomes if name in norms_by_name]
    unused = [name for name in norms_by_name if name not in outcomes]
    return [_layer(name, norms_by_name[name], vectors[name], outcomes.get(name)) for name in called + unused]


def _layer(
    name: str, norm: BatchNorm, vectors: dict[str, np.ndarray], outcome: NormOutcome | None
) -> LayerStats:
    shown = with_derived(vectors, norm.eps)
    tracked = norm.num_batches_tracked
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
        reason=outcome.reason if outcome else "the network does not call it at inference",
        **{kind: summary(shown.get(kind)) for kind in STORED + DERIVED},
    )
