"""Gauges say what holds when a scrape comes; processes are seen as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from service.telemetry import Gauges, Telemetry
from tests.telemetry.reading import IDLE, samples

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_gauges_say_what_holds_now() -> None:
    metrics = Telemetry()
    names = ("ready", "waiting_rows", "slots_in_use", "slots", "workers")

    def read(gauges: Gauges) -> list[float]:
        scraped = samples(metrics, gauges)
        return [scraped[f"foldserve_{name}", ()] for name in names]

    assert read(Gauges(ready=True, waiting_rows=7, slots_in_use=9, slots=64, workers=2)) == [1, 7, 9, 64, 2]
    assert read(Gauges(ready=False, waiting_rows=0, slots_in_use=0, slots=64, workers=1)) == [0, 0, 0, 64, 1]


class Other:
    """Another process, which does what it is told."""

    def __init__(self) -> None:
        loop = "import sys, time\nfor line in sys.stdin: exec(line); print(time.process_time(), flush=True)"
        self.running = subprocess.Popen(
            [sys.executable, "-c", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def does(self, line: str) -> float:
        """Its CPU time in seconds, when it has done that."""
        assert self.running.stdin
        assert self.running.stdout
        self.running.stdin.write(f"{line}\n")
        self.running.stdin.flush()
        return float(self.running.stdout.readline())

    def seen(self, name: str) -> float:
        read = samples(Telemetry(), IDLE, {"supervisor": os.getpid(), "worker-3": self.running.pid})
        return read[f"foldserve_process_{name}", (("process", "worker-3"),)]

    def close(self) -> None:
        self.running.kill()
        self.running.communicate()


@pytest.fixture
def other() -> Iterator[Other]:
    process = Other()
    process.does("pass")
    yield process
    process.close()


def test_the_memory_of_another_process_is_seen(other: Other) -> None:
    before = other.seen("resident_memory_bytes")
    other.does("held = b'x' * (64 << 20)")
    assert other.seen("resident_memory_bytes") - before == pytest.approx(64 << 20, rel=0.1)


def test_the_descriptors_of_another_process_are_seen(other: Other) -> None:
    before = other.seen("open_fds")
    other.does("held = [open('/dev/null') for _ in range(10)]")
    assert other.seen("open_fds") - before == 10


def test_the_cpu_time_of_another_process_is_seen(other: Other) -> None:
    burnt = other.does("[None for _ in iter(lambda: time.process_time() > 0.3, True)]")
    # The kernel counts whole ticks of user and of system time, a hundredth of a second each.
    assert other.seen("cpu_seconds_total") == pytest.approx(burnt, abs=0.03)


def test_the_start_of_another_process_is_seen(other: Other) -> None:
    read = samples(Telemetry(), IDLE, {"supervisor": os.getpid()})
    ours = read["foldserve_process_start_time_seconds", (("process", "supervisor"),)]
    # The kernel's own start is known to a second only.
    assert ours <= other.seen("start_time_seconds") <= time.time() + 1


def test_a_process_that_is_gone_is_left_out(other: Other) -> None:
    other.close()
    read = samples(Telemetry(), IDLE, {"engine": other.running.pid, "supervisor": os.getpid()})
    assert {labels for name, labels in read if name.startswith("foldserve_process")} == {
        (("process", "supervisor"),)
    }
