"""Metrics: what is counted, and the text that Prometheus reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.values import MutexValue

from service.telemetry.families import Families
from service.telemetry.gauges import Processes
from service.telemetry.statistics import COUNT, LAST, ROWS, SECONDS, Statistics, by_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.registry import Collector

    from service.telemetry.gauges import Gauges
    from service.telemetry.shared_values import SharedValues

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_ROW_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

_REQUESTS = "foldserve_requests", "Requests to predict, by outcome: ok, or the problem's type."
_ROWS_ANSWERED = "foldserve_rows", "Rows computed."
_BATCH_ROWS = "foldserve_batch_rows", "Rows in a computed batch."
_STAGE_SECONDS = "foldserve_stage_seconds", "Seconds that a request to predict spent in each stage."
_INFERENCES = COUNT, "Requests to predict that named a served version, by outcome: success or fail."
_INFERENCE_ROWS = ROWS, "Rows of those of them that succeeded."
_INFERENCE_SECONDS = (
    SECONDS,
    "Seconds that these requests took, and those that succeeded in each phase.",
)
_LAST_INFERENCE = LAST, "When a version last answered, in seconds since the epoch."
_RESTARTS = "foldserve_restarts", "Processes that died and were replaced."
_KEYS = "foldserve_key_requests", "Requests that needed a key, by its name; empty for a key of nobody's."
_CHANGES = (
    "foldserve_model_changes",
    "Loads, unloads and baselines asked for while the service ran, by outcome: ok, or why they were refused.",
)
_REFUSED = (
    "foldserve_refused_connections",
    "Connections closed because of what came, or did not, before it was a request, by the problem's type.",
)
_DROPPED = (
    "foldserve_access_log_dropped",
    "Lines of the access log that were lost: full, too many waited; failed, they could not be written.",
)
_DRIFT_SECONDS = (
    "foldserve_drift_work_seconds",
    "Seconds that the engine spent looking at live rows for drift.",
)
_EXAMINATIONS = (
    "foldserve_examinations",
    "Requests about a sample's drift or about preprocessing, by outcome: ok, or the problem's type.",
)
_EXAMINATION_SECONDS = (
    "foldserve_examination_seconds",
    "Seconds that the engine spent on rows that were asked about.",
)
_DRIFT_FAILURES = "foldserve_drift_failures", "Times that looking at live rows failed."
_LAG = "foldserve_event_loop_lag_seconds", "Seconds that an HTTP worker's event loop woke later than asked."

Stage = Literal["decode", "queue", "compute", "total"]
Phase = Literal["success", "queue", "compute_input", "compute_infer", "compute_output"]
Restarted = Literal["worker", "engine"]
Dropped = Literal["full", "failed"]


class Telemetry:
    """What one process counts.

    Alone, it may count on any thread. With `shared` it counts on one, as a part of a service of several
    processes, and a scrape in any of them answers for all.
    """

    def __init__(self, shared: SharedValues | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        self._count(Families(self.registry, shared.place if shared else MutexValue))

    def _count(self, families: Families) -> None:
        counter, histogram = families.counter, families.histogram
        self._requests = counter(*_REQUESTS, ["model", "outcome"])
        self._rows = counter(*_ROWS_ANSWERED, ["model", "version"])
        self._batch_rows = histogram(*_BATCH_ROWS, ["model", "version"], _ROW_COUNTS)
        self._stage_seconds = histogram(*_STAGE_SECONDS, ["model", "stage"], _SECONDS)
        versions = ["model", "version"]
        self._inferences = counter(*_INFERENCES, [*versions, "outcome"])
        self._inference_rows = counter(*_INFERENCE_ROWS, versions)
        self._inference_seconds = counter(*_INFERENCE_SECONDS, [*versions, "phase"])
        self._last_inference = families.latest(*_LAST_INFERENCE, versions)
        self._keys = counter(*_KEYS, ["key"])
        self._examinations = counter(*_EXAMINATIONS, ["model", "outcome"])
        self._examination_seconds = counter(*_EXAMINATION_SECONDS, versions)
        self._changes = counter(*_CHANGES, ["model", "kind", "outcome"])
        self._refused = counter(*_REFUSED, ["reason"])
        dropped = counter(*_DROPPED, ["reason"])
        # Made before they are needed, since they are counted on a thread each: to make one is for one thread.
        self._dropped = {reason: dropped(reason) for reason in get_args(Dropped)}
        self._drift_seconds = counter(*_DRIFT_SECONDS, versions)
        self._drift_failures = counter(*_DRIFT_FAILURES, versions)
        self._lag = histogram(*_LAG, [], _SECONDS)
        self._restarts = counter(*_RESTARTS, ["process"])
        for process in get_args(Restarted):
            self._restarts(process)

    def request(self, model: str, outcome: str) -> None:
        """Count one request; `model` is a served name, or empty where none was found."""
        self._requests(model, outcome).inc()

    def stage(self, model: str, stage: Stage, seconds: float) -> None:
        """Record how long one request spent in one stage."""
        self._stage_seconds(model, stage).observe(seconds)

    def succeeded(self, model: str, version: int, rows: int, seconds: Mapping[Phase, float]) -> None:
        """Count one request of so many rows that a version answered, and where its time went."""
        self._inferences(model, version, "success").inc()
        self._inference_rows(model, version).inc(rows)
        for phase, value in seconds.items():
            self._inference_seconds(model, version, phase).inc(value)
        self._last_inference(model, version).set(time.time())

    def failed(self, model: str, version: int, seconds: float) -> None:
        """Count one request that a version was asked and did not answer."""
        self._inferences(model, version, "fail").inc()
        self._inference_seconds(model, version, "fail").inc(seconds)

    def statistics(self) -> dict[tuple[str, int], Statistics]:
        """What was counted of each model and version that was asked, by all parts of the service."""
        return by_version((self._shared or self.registry).collect())

    def batch(self, model: str, version: int, rows: int) -> None:
        """Record one computed batch."""
        self._batch_rows(model, version).observe(rows)
        self._rows(model, version).inc(rows)

    def drift_seconds(self, model: str, version: int, seconds: float) -> None:
        """Record time that went into looking at a version's live rows."""
        self._drift_seconds(model, version).inc(seconds)

    def drift_failed(self, model: str, version: int) -> None:
        """Count one failure in that; no request fails by it."""
        self._drift_failures(model, version).inc()

    def examination(self, model: str, outcome: str) -> None:
        """Count one request about a sample; `model` is a served name, or empty where none was found."""
        self._examinations(model, outcome).inc()

    def examined(self, model: str, version: int, seconds: float) -> None:
        """Record time that went into rows that were asked about."""
        self._examination_seconds(model, version).inc(seconds)

    def lag(self, seconds: float) -> None:
        """Record how much later than asked an event loop woke."""
        self._lag().observe(seconds)

    def key(self, name: str) -> None:
        """Count one request that needed a key, and bore that of this name; empty: of nobody."""
        self._keys(name).inc()

    def model_change(self, model: str, kind: Literal["load", "unload", "accept"], outcome: str) -> None:
        """Count one change of what is served; `model` is a known name, or empty."""
        self._changes(model, kind, outcome).inc()

    def refused(self, reason: str) -> None:
        """Count one connection that was closed for that before a request was complete."""
        self._refused(reason).inc()

    def access_line_dropped(self, reason: Dropped) -> None:
        """Count one line of the access log that was lost; each reason on one thread only."""
        self._dropped[reason].inc()

    def restarted(self, process: Restarted) -> None:
        """Count one process that took the place of a dead one."""
        self._restarts(process).inc()

    def scrape(self, gauges: Gauges, pids: Mapping[str, int], *others: Collector) -> bytes:
        """The metrics in Prometheus' text format; `pids` are the processes to look at, by their names."""
        registry = CollectorRegistry()
        for collector in (gauges, *others, Processes(pids), self._shared or self.registry):
            registry.register(collector)
        return generate_latest(registry)
