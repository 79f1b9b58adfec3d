"""The acceptance: the live rows of a version become its baseline, at once and for later loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine import allocator
from service.errors import NotStored, NotWatched, StoreError, TooFewRows, UnknownModel, UnknownVersion
from service.store import baseline as baselines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from service.engine.card import ModelFacts
    from service.engine.change import Change
    from service.engine.repertoire import Entry
    from service.engine.selection import Selection
    from service.inspection.baseline import Baseline
    from service.inspection.recent_rows import Snapshot
    from service.store.model_store import Fingerprint


@dataclass(frozen=True)
class Accepted:
    """A baseline that is stored, and what it is of."""

    number: int
    """Of the version as it was loaded."""
    baseline: Baseline
    fingerprint: Fingerprint
    """Of the version's files, which the baseline may be one of now."""


class Acceptance:
    """Makes and stores baselines, on whatever thread; `apart`: where they lie if not beside the weights."""

    def __init__(self, selection: Selection, apart: Path | None) -> None:
        self._selection = selection
        self._apart = apart

    def accepted(
        self,
        change: Change,
        served: Sequence[tuple[Entry, ModelFacts]],
        recent: Mapping[int, Snapshot | None],
    ) -> Accepted:
        """The baseline of the version that `change` names, of the highest where it names none.

        `recent` are the rows by the number of what was loaded. Raises `UnknownModel`, `UnknownVersion`,
        `NotWatched`, `TooFewRows` and `NotStored`. Takes seconds where a network is wide.
        """
        entry, facts = _chosen(change, served)
        rows = _enough(recent.get(entry.number), facts)
        shape = facts.output_shape
        with allocator.giving_back():  # what is drawn takes much more than what is served
            baseline = rows.baseline(shape[0] if len(shape) == 1 else 1)
        return Accepted(entry.number, baseline, self._stored(entry, facts, baseline))

    def _stored(self, entry: Entry, facts: ModelFacts, baseline: Baseline) -> Fingerprint:
        """Write it; the fingerprint of the files, which stays another where they had changed before."""
        try:
            stored, fingerprint = self._selection.picked(facts.model, facts.version)
            if stored.manifest != facts.manifest:
                raise NotStored(f"{stored} was replaced in the store since it was loaded: load it first")
            baselines.write(stored, self._apart, baseline.arrays())
            is_known = fingerprint == entry.fingerprint
            return (
                self._selection.picked(facts.model, facts.version).fingerprint
                if is_known
                else entry.fingerprint
            )
        except StoreError as error:
            raise NotStored(f"{error}; foldserve serve --baselines DIR keeps baselines elsewhere") from error


def _chosen(change: Change, served: Sequence[tuple[Entry, ModelFacts]]) -> tuple[Entry, ModelFacts]:
    if not served:
        raise UnknownModel(f"no model {change.model!r} is served")
    wanted = change.version or max(entry.version for entry, _ in served)
    for entry, facts in served:
        if entry.version == wanted:
            return entry, facts
    raise UnknownVersion(f"model {change.model!r} is not served in version {wanted}")


def _enough(rows: Snapshot | None, facts: ModelFacts) -> Snapshot:
    if rows is None:
        raise NotWatched(f"nothing looks at the rows of {facts.model}/{facts.version}")
    if len(rows.rows) < rows.needed:
        raise TooFewRows(
            f"{len(rows.rows)} different rows were looked at since the state last changed; "
            f"a baseline takes {rows.needed}"
        )
    return rows
