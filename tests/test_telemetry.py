"""What is counted can be scraped, and what is logged can be read, by machines too."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import telemetry
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


def samples(metrics: Telemetry, **gauges: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape as a parser of the format reads it."""
    text = metrics.scrape(**{"ready": True, "waiting_rows": 0, **gauges}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Telemetry, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


# Metrics


def test_a_new_service_has_counted_nothing() -> None:
    read = samples(Telemetry(), ready=False)
    assert read["foldserve_ready", ()] == 0
    assert read["foldserve_waiting_rows", ()] == 0
    assert not [name for name, _ in read if name.startswith("foldserve_requests")]
    assert any(name == "process_resident_memory_bytes" for name, _ in read)


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


@pytest.mark.parametrize("stage", ["decode", "queue", "compute", "total"])
def test_seconds_are_observed_per_stage(stage: Any) -> None:
    metrics = Telemetry()
    metrics.stage("a", stage, 0.002)
    metrics.stage("a", stage, 100.0)
    labels = {"model": "a", "stage": stage}
    assert value(metrics, "foldserve_stage_seconds_count", **labels) == 2
    assert value(metrics, "foldserve_stage_seconds_sum", **labels) == pytest.approx(100.002)
    assert value(metrics, "foldserve_stage_seconds_bucket", le="0.0025", **labels) == 1
    assert value(metrics, "foldserve_stage_seconds_bucket", le="30.0", **labels) == 1


def test_gauges_say_what_holds_now() -> None:
    metrics = Telemetry()
    assert samples(metrics, ready=True, waiting_rows=7)["foldserve_waiting_rows", ()] == 7
    read = samples(metrics, ready=False, waiting_rows=0)
    assert (read["foldserve_ready", ()], read["foldserve_waiting_rows", ()]) == (0, 0)


def test_labels_of_any_text_survive_the_format() -> None:
    metrics = Telemetry()
    odd = 'quo"te\\back\nline ü'
    metrics.request(odd, "ok")
    assert value(metrics, "foldserve_requests_total", model=odd, outcome="ok") == 1


def test_the_scrape_is_in_the_format_that_its_type_names() -> None:
    text = Telemetry().scrape(ready=True, waiting_rows=0).decode()
    assert telemetry.CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in text, "that would be OpenMetrics"
    assert text.endswith("\n")
    assert "# HELP foldserve_ready 1 when requests are answered.\n" in text


def test_two_services_in_one_process_count_apart() -> None:
    first, second = Telemetry(), Telemetry()
    first.request("a", "ok")
    assert not [name for name, _ in samples(second) if name.startswith("foldserve_requests")]


def test_counting_from_many_threads_loses_nothing() -> None:
    metrics = Telemetry()

    def count() -> None:
        for _ in range(500):
            metrics.batch("a", 1, 2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "foldserve_rows_total", model="a", version="1") == 4000


# Logs


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Puts back what `set_up_logs` changes."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    handlers, level, uvicorn_level = list(root.handlers), root.level, uvicorn.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    uvicorn.setLevel(uvicorn_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


@pytest.mark.usefixtures("root_logger")
def test_a_json_log_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "json")
    logging.getLogger("foldserve.test").warning('%s of\n%d "rows", ü \x00', "two", 3)
    (line,) = lines(capsys)
    assert list(line) == ["time", "level", "logger", "message"]
    assert line["message"] == 'two of\n3 "rows", ü \x00'
    assert (line["level"], line["logger"]) == ("warning", "foldserve.test")
    assert len(line["time"]) == len("2026-01-01T00:00:00+0000")


@pytest.mark.usefixtures("root_logger")
def test_a_json_log_keeps_an_exception_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "json")
    log = logging.getLogger("foldserve")
    failure = ValueError('a "quoted"\nreason')
    try:
        raise failure
    except ValueError:
        log.exception("it failed")
    log.error("it failed again", exc_info=failure)
    first, second = lines(capsys)
    assert first["message"] == "it failed"
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert first["exception"].endswith('ValueError: a "quoted"\nreason')
    assert second["exception"] == first["exception"]


@pytest.mark.usefixtures("root_logger")
def test_a_text_log_is_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "text")
    logging.getLogger("foldserve").info("ready")
    assert capsys.readouterr().err.endswith("INFO    ready\n")


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_is_asked_for_is_logged(capsys: pytest.CaptureFixture[str], level: str, heard: int) -> None:
    telemetry.set_up_logs(level, "json")
    log = logging.getLogger("foldserve")
    for say in (log.debug, log.info, log.warning, log.error):
        say("said")
    assert len(lines(capsys)) == heard


@pytest.mark.usefixtures("root_logger")
def test_setting_up_again_takes_the_place_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "text")
    telemetry.set_up_logs("info", "json")
    logging.getLogger("foldserve").info("once")
    logging.getLogger("uvicorn.error").info("the server's own chatter")
    assert [line["message"] for line in lines(capsys)] == ["once"]
