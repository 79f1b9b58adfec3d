"""Scrapes, as Prometheus' own parser reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import Gauges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.telemetry import Telemetry

IDLE = Gauges(ready=True, waiting_rows=0, slots_in_use=0, slots=8, workers=1)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(telemetry: Telemetry, gauges: Gauges = IDLE, pids: Mapping[str, int] | None = None) -> Samples:
    """Every sample of a scrape by its name and labels."""
    text = telemetry.scrape(gauges, pids or {}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    """One sample; 0 where there is none yet."""
    return samples(telemetry).get((name, tuple(sorted(labels.items()))), 0.0)
