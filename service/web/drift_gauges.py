"""Drift gauges: the latest reports as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.inspection.drift_report import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

    from service.inspection.drift_report import DriftReport, Scores

_LABELS = ["model", "version"]


class DriftGauges(Collector):
    """What is known of all versions whose live rows are looked at."""

    def __init__(self, reports: Sequence[DriftReport]) -> None:
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """The state, the scores with their thresholds, and how much was seen."""
        state = GaugeMetricFamily(
            "foldserve_drift_state", "1 for the state of a version's live rows.", labels=[*_LABELS, "state"]
        )
        rows = GaugeMetricFamily(
            "foldserve_drift_effective_rows", "Independent rows in the last window.", labels=_LABELS
        )
        for report in self._reports:
            labels = [report.model, str(report.version)]
            for name in get_args(State):
                state.add_metric([*labels, name], float(report.state == name))
            rows.add_metric(labels, report.n_eff)
        yield state
        yield rows
        yield self._of_parts("score", "Distance from the reference that decides.", "scores")
        yield self._of_parts("threshold", "What it may be.", "thresholds")
        yield self._of_parts("training_score", "Distance from the frozen statistics.", "training_scores")

    def _of_parts(self, name: str, meaning: str, field: str) -> Metric:
        family = GaugeMetricFamily(f"foldserve_drift_{name}", meaning, labels=[*_LABELS, "part"])
        for report in self._reports:
            scores: Scores | None = getattr(report, field)
            for part, value in (scores.model_dump() if scores else {}).items():
                if value is not None:
                    family.add_metric([report.model, str(report.version), part], value)
        return family
