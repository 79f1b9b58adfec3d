"""Statistics: what became of the requests to one version, summed over all processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

COUNT, ROWS, SECONDS = "foldserve_inferences", "foldserve_inference_rows", "foldserve_inference_seconds"
LAST = "foldserve_last_inference_timestamp_seconds"
_BATCHES = "foldserve_batch_rows_count"


@dataclass(frozen=True)
class Statistics:
    """One version's."""

    counts: Mapping[str, int]
    """Requests by outcome, `success` and `fail`."""
    seconds: Mapping[str, float]
    """Of these two in all, and of those that succeeded by phase."""
    rows: int
    """Of those that succeeded."""
    batches: int
    last: float
    """When a request last succeeded, in seconds since the epoch; 0 for never."""

    @classmethod
    def of(cls, families: Iterable[Metric], model: str, version: int) -> Self:
        """What the samples of a scrape say of one version."""
        labels = {"model": model, "version": str(version)}
        found: dict[str, dict[str, float]] = {}
        for sample in (sample for family in families for sample in family.samples):
            if labels.items() <= sample.labels.items():
                kind = sample.labels.get("outcome") or sample.labels.get("phase") or ""
                found.setdefault(sample.name, {})[kind] = sample.value
        numbers = {name: found.get(name, {}).get("", 0.0) for name in (f"{ROWS}_total", _BATCHES, LAST)}
        return cls(
            {outcome: int(value) for outcome, value in found.get(f"{COUNT}_total", {}).items()},
            found.get(f"{SECONDS}_total", {}),
            int(numbers[f"{ROWS}_total"]),
            int(numbers[_BATCHES]),
            numbers[LAST],
        )
