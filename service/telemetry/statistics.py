"""Statistics: what became of the requests to one version, summed over all processes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    # The samples of each version, by their names and then by what they count.
    _Found = defaultdict[tuple[str, int], defaultdict[str, dict[str, float]]]

COUNT, ROWS, SECONDS = "foldserve_inferences", "foldserve_inference_rows", "foldserve_inference_seconds"
LAST = "foldserve_last_inference_timestamp_seconds"
_BATCHES = "foldserve_batch_rows_count"


@dataclass(frozen=True)
class Statistics:
    """One version's."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Requests by outcome, `success` and `fail`."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of these two in all, and of those that succeeded by phase."""
    rows: int = 0
    """Of those that succeeded."""
    batches: int = 0
    last: float = 0.0
    """When a request last succeeded, in seconds since the epoch; 0 for never."""


def by_version(families: Iterable[Metric]) -> dict[tuple[str, int], Statistics]:
    """What the samples of one scrape say of every model and version that was asked."""
    found: _Found = defaultdict(lambda: defaultdict(dict))
    for sample in (sample for family in families for sample in family.samples):
        labels = sample.labels
        if "version" in labels:
            kind = labels.get("outcome") or labels.get("phase") or ""
            found[labels["model"], int(labels["version"])][sample.name][kind] = sample.value
    return {version: _read(samples) for version, samples in found.items()}


def _read(samples: Mapping[str, Mapping[str, float]]) -> Statistics:
    rows, batches, last = (samples.get(name, {}).get("", 0.0) for name in (f"{ROWS}_total", _BATCHES, LAST))
    counts = {outcome: int(value) for outcome, value in samples.get(f"{COUNT}_total", {}).items()}
    return Statistics(counts, samples.get(f"{SECONDS}_total", {}), int(rows), int(batches), last)
