"""What is counted can be scraped, and the page that explains it is complete."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.inspection.drift_report import Scores, unseen
from service.telemetry import CONTENT_TYPE, SharedValues, Stage, Telemetry, directory
from service.web.drift_gauges import DriftGauges
from tests.telemetry.reading import IDLE, samples, value

if TYPE_CHECKING:
    from prometheus_client import Metric

SCORES = Scores(input=0.1, content=0.2)
REPORT = unseen("a", 1, "warming").model_copy(
    update={"scores": SCORES, "thresholds": SCORES, "training_scores": SCORES}
)
DRIFT = DriftGauges([REPORT])
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def busy(telemetry: Telemetry) -> None:
    """Counts something of everything."""
    telemetry.request("a", "ok")
    for stage in get_args(Stage):
        telemetry.stage("a", stage, 0.002)
    telemetry.batch("a", 1, 3)
    telemetry.succeeded("a", 1, 3, {"success": 0.004, "compute_infer": 0.002})
    telemetry.failed("a", 1, 0.001)
    telemetry.drift_seconds("a", 1, 0.001)
    telemetry.drift_failed("a", 1)
    telemetry.examination("a", "ok")
    telemetry.examined("a", 1, 0.001)
    telemetry.lag(0.003)
    telemetry.restarted("worker")
    telemetry.key("shop")
    telemetry.model_change("a", "load", "ok")
    telemetry.refused("invalid-http")
    telemetry.access_line_dropped("full")


def families(telemetry: Telemetry) -> dict[str, Metric]:
    """The families of a scrape, which looks at this very process, by the names that a query has."""
    text = telemetry.scrape(IDLE, {"supervisor": 1, "engine": 1}, DRIFT).decode()
    read = text_string_to_metric_families(text)
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in read}


def test_a_new_service_has_counted_nothing() -> None:
    read = samples(Telemetry())
    assert not [name for name, _ in read if name.startswith(("foldserve_requests", "foldserve_rows"))]
    assert read["foldserve_event_loop_lag_seconds_count", ()] == 0


def test_requests_are_counted_by_model_and_outcome() -> None:
    metrics = Telemetry()
    for model, outcome in (("a", "ok"), ("a", "ok"), ("a", "queue-full"), ("", "unknown-model")):
        metrics.request(model, outcome)
    assert value(metrics, "foldserve_requests_total", model="a", outcome="ok") == 2
    assert value(metrics, "foldserve_requests_total", model="a", outcome="queue-full") == 1
    assert value(metrics, "foldserve_requests_total", model="", outcome="unknown-model") == 1


def test_batches_are_counted_in_rows_and_sorted_into_buckets() -> None:
    metrics = Telemetry()
    for rows in (1, 3, 64, 5000):
        metrics.batch("a", 2, rows)
    labels = {"model": "a", "version": "2"}
    assert value(metrics, "foldserve_rows_total", **labels) == 5068
    assert value(metrics, "foldserve_batch_rows_count", **labels) == 4
    assert value(metrics, "foldserve_batch_rows_sum", **labels) == 5068
    counts = {
        le: value(metrics, "foldserve_batch_rows_bucket", le=le, **labels) for le in ("1.0", "4.0", "64.0")
    }
    assert counts == {"1.0": 1, "4.0": 2, "64.0": 3}
    assert value(metrics, "foldserve_batch_rows_bucket", le="+Inf", **labels) == 4


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    metrics = Telemetry()
    for rows in (4, 5):
        metrics.batch("a", 1, rows)
    labels = {"model": "a", "version": "1"}
    assert value(metrics, "foldserve_batch_rows_bucket", le="4.0", **labels) == 1
    assert value(metrics, "foldserve_batch_rows_bucket", le="8.0", **labels) == 2


@pytest.mark.parametrize("stage", get_args(Stage))
def test_seconds_are_observed_per_stage(stage: Any) -> None:
    metrics = Telemetry()
    metrics.stage("a", stage, 0.002)
    metrics.stage("a", stage, 100.0)
    labels = {"model": "a", "stage": stage}
    assert value(metrics, "foldserve_stage_seconds_count", **labels) == 2
    assert value(metrics, "foldserve_stage_seconds_sum", **labels) == pytest.approx(100.002)
    assert value(metrics, "foldserve_stage_seconds_bucket", le="0.0025", **labels) == 1
    assert value(metrics, "foldserve_stage_seconds_bucket", le="30.0", **labels) == 1


def test_restarts_are_there_before_the_first_so_that_it_is_an_increase() -> None:
    metrics = Telemetry()
    name = "foldserve_restarts_total"
    assert samples(metrics)[name, (("process", "engine"),)] == 0
    metrics.restarted("worker")
    metrics.restarted("worker")
    assert (value(metrics, name, process="worker"), value(metrics, name, process="engine")) == (2, 0)


def test_labels_of_any_text_survive_the_format() -> None:
    with directory() as folder:
        for metrics in (Telemetry(), Telemetry(SharedValues(folder, "engine"))):
            odd = 'quo"te\\back\nline ü'
            metrics.request(odd, "ok")
            assert value(metrics, "foldserve_requests_total", model=odd, outcome="ok") == 1


def test_two_services_in_one_process_count_apart() -> None:
    first, second = Telemetry(), Telemetry()
    first.request("a", "ok")
    assert not [name for name, _ in samples(second) if name.startswith("foldserve_requests")]


def test_counting_from_many_threads_loses_nothing() -> None:
    def count(metrics: Telemetry) -> None:
        for _ in range(500):
            metrics.batch("a", 1, 2)

    metrics = Telemetry()
    threads = [threading.Thread(target=count, args=(metrics,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "foldserve_rows_total", model="a", version="1") == 4000


# The format, and the page


def test_the_scrape_is_in_the_format_that_its_type_names() -> None:
    text = Telemetry().scrape(IDLE, {}).decode()
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in text, "that would be OpenMetrics"
    assert text.endswith("\n")
    assert "# HELP foldserve_ready 1 when requests are answered.\n" in text


def test_every_family_is_introduced_once() -> None:
    with directory() as folder:
        parts = [Telemetry(SharedValues(folder, part)) for part in ("supervisor", "engine", "worker-0")]
        for part in parts:
            busy(part)
        lines = parts[0].scrape(IDLE, {"supervisor": 1, "engine": 1}, DRIFT).decode().splitlines()
    introduced = Counter(tuple(line.split()[1:3]) for line in lines if line.startswith("# "))
    assert set(introduced.values()) == {1}
    assert {what for what, _ in introduced} == {"HELP", "TYPE"}
    assert len(introduced) == 2 * len(families(Telemetry()))


def test_names_say_what_they_are_and_in_which_unit() -> None:
    for name, family in families(Telemetry()).items():
        assert re.fullmatch(r"foldserve_[a-z_]+", name)
        assert not re.search(r"(_ms|_milliseconds|_mb|_kib|_percent)(_total)?$", name)
        assert name.endswith("_total") == (family.type == "counter")
        assert family.documentation.endswith(".")


def documented() -> dict[str, list[str]]:
    """The rows of the page's tables by their first cell: type, labels, meaning."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text("utf-8").splitlines() if "| `" in line]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_the_page_has_every_metric_and_no_other() -> None:
    assert sorted(documented()) == sorted(families(Telemetry()))


@pytest.mark.parametrize("name", documented())
def test_the_page_says_the_type_the_labels_and_the_meaning_of(name: str) -> None:
    metrics = Telemetry()
    busy(metrics)
    family = families(metrics)[name]
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    kind, documented_labels, meaning = documented()[name]
    assert kind == family.type
    assert set(re.findall(r"`(\w+)`", documented_labels)) == labels
    assert meaning.startswith(family.documentation)
