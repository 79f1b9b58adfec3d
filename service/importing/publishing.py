"""Publishing: a source becomes a version of the store, folded and proven as it lies on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from service.engine import unfolded
from service.engine.loading import load
from service.engine.stopwatch import Stopwatch
from service.errors import ModelRefused, UnknownModel
from service.graph.parity import relative_error
from service.plan.device import choose
from service.store import manifest as manifests
from service.store import reference as answers
from service.store.model_store import StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.engine.card import ModelFacts
    from service.graph.reference import Reference
    from service.importing.source import Source
    from service.store.model_store import ModelStore

_LABELS_FILE = "labels.txt"
_SAME = 1e-4
_SCALE = 4.0


@dataclass(frozen=True)
class Report:
    """What an import found out."""

    facts: ModelFacts
    """What the service will say of the version: its manifest, every norm's outcome, the parity."""
    remarks: tuple[str, ...]
    """What was done to get there, one sentence each."""

    def __str__(self) -> str:
        return f"{self.facts.model}/{self.facts.version}"


def next_version(store: ModelStore, name: str) -> int:
    """The version behind the last one; 1 where there is none."""
    try:
        return max(store.versions(name), default=0) + 1
    except UnknownModel:
        return 1


def publish(
    source: Source,
    store: ModelStore,
    name: str,
    version: int | None = None,
    *,
    device: str = "cpu",
    announce: Callable[[Report], object] = lambda _: None,
) -> Report:
    """Write `source` as a version of `name`, the next one where none is said; the answer is what was found.

    It is written into a hidden folder, read back and loaded from there as the engine will load it (folded,
    lowered and proven on `device`), announced, and only then moved to its name in one step. Raises
    `StoreError` for a name that is not allowed or a version that is there already, and whatever makes a load
    fail; then nothing is left behind.
    """
    version = next_version(store, name) if version is None else version
    reports: list[Report] = []

    def fill(folder: Path) -> None:
        staged = StoredModel(name, version, folder, _written(folder, source))
        found = [unfolded.read(staged, Stopwatch())]
        staged = _with_reference(staged, source, found[0].reference)
        # Most of an import's time is one capture, and what was captured has not changed since.
        facts = load(staged, choose(device), read=lambda *_: found.pop()).card.facts
        reports.append(Report(facts, source.remarks))
        announce(reports[0])

    store.publish(name, version, fill)
    return reports[0]


def _written(folder: Path, source: Source) -> manifests.Manifest:
    document: dict[str, Any] = {
        **source.table,
        "input": source.input.model_dump(exclude_none=True),
        "outputs": [{}],
        **source.write(folder),
    }
    if source.labels is not None:
        text = "".join(f"{label}\n" for label in source.labels)
        (folder / _LABELS_FILE).write_text(text, encoding="utf-8")
        document["outputs"] = [{"labels": _LABELS_FILE}]
    if source.provenance:
        document["provenance"] = {"import": source.provenance}
    manifests.write(folder / manifests.FILE_NAME, manifests.parse(document))
    return manifests.read(folder / manifests.FILE_NAME)


def _with_reference(staged: StoredModel, source: Source, reference: Reference) -> StoredModel:
    """The version with its float64 answers beside it, and its task: one vector a row is a classification."""
    _require_original(reference, source)
    answers.write(staged, reference.rows.numpy(), reference.answers.numpy())
    if reference.answers.dim() == 2:
        return staged
    output = staged.manifest.output.model_copy(update={"task": "tensor"})
    manifest = staged.manifest.model_copy(update={"outputs": [output]})
    manifests.write(staged.folder / manifests.FILE_NAME, manifest)
    return StoredModel(staged.name, staged.version, staged.folder, manifest)


@torch.inference_mode()
def _require_original(reference: Reference, source: Source) -> None:
    """What lies in the store must answer as the network that was brought, but for the rounding of float32."""
    given = source.network(reference.rows)
    if not isinstance(given, torch.Tensor):
        raise ModelRefused(
            f"the network answers with a {type(given).__name__}; let it return the one tensor in that"
        )
    given = given.double()
    own_error = reference.own_error(torch.float32)
    error = relative_error(reference.answers, given)
    if not error <= max(_SAME, _SCALE * own_error):
        raise ModelRefused(f"what was stored answers otherwise than the network: relative error {error:.1e}")
