"""Statistics are the sums over all processes, of one version alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.telemetry import SharedValues, Statistics, Telemetry, directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest
    from prometheus_client.core import Metric


def test_a_version_that_nobody_asked_has_none() -> None:
    assert Telemetry().statistics() == {}
    assert Statistics() == Statistics({}, {}, 0, 0, 0.0)


def test_every_process_tells_the_sum_over_all() -> None:
    with directory() as folder:
        parts = [Telemetry(SharedValues(folder, part)) for part in ("engine", "worker-0", "worker-1")]
        engine, first, second = parts
        engine.batch("a", 2, 5)
        engine.batch("a", 2, 3)
        before = time.time()
        first.succeeded("a", 2, 4, {"success": 0.5, "queue": 0.125})
        second.succeeded("a", 2, 2, {"success": 0.25, "queue": 0.0})
        second.failed("a", 2, 2.0)
        for part in parts:
            found = part.statistics()["a", 2]
            assert found.counts == {"success": 2, "fail": 1}
            assert found.seconds == {"success": 0.75, "queue": 0.125, "fail": 2.0}
            assert (found.rows, found.batches) == (6, 2), "rows that were computed for nobody are not counted"
            assert before <= found.last <= time.time()


def test_the_last_inference_is_the_latest_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory() as folder:
        first, second = (Telemetry(SharedValues(folder, f"worker-{number}")) for number in range(2))
        for part, now in ((first, 100.0), (second, 300.0), (first, 200.0)):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            part.succeeded("a", 1, 1, {})
        assert first.statistics()["a", 1].last == second.statistics()["a", 1].last == 300.0


def test_versions_and_models_are_counted_apart() -> None:
    metrics = Telemetry()
    metrics.succeeded("a", 1, 1, {"success": 1.0})
    metrics.succeeded("a", 11, 1, {"success": 2.0})
    metrics.succeeded("b", 1, 1, {"success": 4.0})
    metrics.batch("b", 2, 7)
    found = metrics.statistics()
    assert set(found) == {("a", 1), ("a", 11), ("b", 1), ("b", 2)}
    assert found["a", 1].seconds == {"success": 1.0}
    assert found["a", 1].counts == {"success": 1}
    assert (found["b", 2].batches, found["b", 2].counts) == (1, {})


def test_one_look_at_the_files_tells_of_every_version() -> None:
    class Counted(SharedValues):
        looks = 0

        def collect(self) -> Iterable[Metric]:
            self.looks += 1
            return super().collect()

    with directory() as folder:
        shared = Counted(folder, "worker-0")
        metrics = Telemetry(shared)
        for version in range(1, 51):
            metrics.succeeded("a", version, version, {})
        assert [metrics.statistics()["a", 7].rows, shared.looks] == [7, 1]
