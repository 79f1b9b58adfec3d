"""Gauges: what is read when a scrape asks, and not counted before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MEANINGS = {
    "ready": "1 when requests are answered.",
    "waiting_rows": "Rows of accepted requests that are not being computed yet.",
    "slots_in_use": "Slots of the arena that hold a row.",
    "slots": "Slots of the arena.",
    "workers": "HTTP workers that run.",
}


@dataclass(frozen=True)
class Gauges(Collector):
    """The state of the whole service, as the one who answers the scrape knows it."""

    ready: bool
    waiting_rows: int
    slots_in_use: int
    slots: int
    workers: int

    def collect(self) -> Iterable[Metric]:
        """One family for each field."""
        for name, meaning in _MEANINGS.items():
            yield GaugeMetricFamily(f"foldserve_{name}", meaning, float(getattr(self, name)))


class Processes(Collector):
    """Memory, CPU time, descriptors and start of processes, from /proc; one that is gone is left out."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """prometheus_client's own families of a process, with a label that says which."""
        pid = 0
        one = ProcessCollector("foldserve", lambda: pid, registry=None)
        families: dict[str, Metric] = {}
        for process, pid in self._pids.items():  # noqa: B007 the collector reads it
            for family in one.collect():
                labelled = Metric(family.name, family.documentation, family.type)
                for sample in family.samples:
                    families.setdefault(family.name, labelled).add_sample(
                        sample.name, {"process": process}, sample.value
                    )
        return families.values()
