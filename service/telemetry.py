"""Telemetry: logs and metrics."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

Stage = Literal["decode", "queue", "compute", "total"]


class Telemetry:
    """The metrics of one service; safe to call from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "foldserve_requests",
            "Requests to predict, by outcome: ok, or the problem's type.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self._rows = Counter("foldserve_rows", "Rows answered.", ["model", "version"], registry=self.registry)
        self._batch_rows = Histogram(
            "foldserve_batch_rows",
            "Rows in a computed batch.",
            ["model", "version"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "foldserve_stage_seconds",
            "Seconds that a request to predict spent in each stage.",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waiting_rows = Gauge("foldserve_waiting_rows", "Rows in the queue.", registry=self.registry)
        self._ready = Gauge("foldserve_ready", "1 when requests are answered.", registry=self.registry)

    def request(self, model: str, outcome: str) -> None:
        """Count one request; `model` is a served name, or empty where none was found."""
        self._requests.labels(model, outcome).inc()

    def stage(self, model: str, stage: Stage, seconds: float) -> None:
        """Record how long one request spent in one stage."""
        self._stage_seconds.labels(model, stage).observe(seconds)

    def batch(self, model: str, version: int, rows: int) -> None:
        """Record one computed batch."""
        self._batch_rows.labels(model, version).observe(rows)
        self._rows.labels(model, version).inc(rows)

    def scrape(self, *, ready: bool, waiting_rows: int) -> bytes:
        """The metrics in Prometheus' text format."""
        self._ready.set(ready)
        self._waiting_rows.set(waiting_rows)
        return generate_latest(self.registry)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: str, style: Literal["text", "json"]) -> None:
    """Send the logs of foldserve and its server to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if style == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel("WARNING")
