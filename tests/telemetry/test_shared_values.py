"""One scrape answers for all processes, the dead ones too, and nothing that was counted is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry import SharedValues, Stage, Telemetry, directory
from tests.telemetry.reading import samples, value

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REQUESTS = "foldserve_requests_total"
OK = {"model": "a", "outcome": "ok"}

LOOP = """
import sys
from pathlib import Path
from service.telemetry import SharedValues, Telemetry
telemetry = Telemetry(SharedValues(Path(sys.argv[1]), sys.argv[2]))
print("up", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Part:
    """A process that plays one part and counts what it is told."""

    def __init__(self, folder: Path, name: str) -> None:
        self.running = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", LOOP, str(folder), name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.heard("up")

    def heard(self, word: str) -> None:
        assert self.running.stdout
        assert self.running.stdout.readline() == f"{word}\n"

    def told(self, line: str) -> None:
        assert self.running.stdin
        self.running.stdin.write(f"{line}\n")
        self.running.stdin.flush()

    def does(self, line: str) -> None:
        self.told(line)
        self.heard("done")

    def killed(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.communicate()
        assert self.running.returncode == -signal.SIGKILL


class House:
    """The folder of a service, its processes, and a scrape in a process that counts nothing itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scraping = Telemetry(SharedValues(folder, "supervisor"))
        self.parts: list[Part] = []

    def part(self, name: str) -> Part:
        part = Part(self.folder, name)
        self.parts.append(part)
        return part

    def requests(self) -> float:
        return value(self.scraping, REQUESTS, **OK)

    def close(self) -> None:
        for part in self.parts:
            part.running.kill()
            part.running.communicate()


@pytest.fixture
def house() -> Iterator[House]:
    with directory() as folder:
        made = House(folder)
        yield made
        made.close()


def test_a_scrape_sums_what_several_processes_counted(house: House) -> None:
    for number, name in enumerate(("engine", "worker-0", "worker-1"), start=1):
        part = house.part(name)
        part.does(f"for _ in range({number}): telemetry.request('a', 'ok')")
        part.does(f"telemetry.stage('a', 'queue', {number}.0)")
    assert house.requests() == 6
    labels = {"model": "a", "stage": "queue"}
    assert value(house.scraping, "foldserve_stage_seconds_sum", **labels) == 6
    assert value(house.scraping, "foldserve_stage_seconds_count", **labels) == 3
    assert value(house.scraping, "foldserve_stage_seconds_bucket", le="2.5", **labels) == 2


def test_what_was_counted_outlives_a_killed_process_and_its_replacement_counts_on(house: House) -> None:
    first = house.part("worker-0")
    first.does("for _ in range(100): telemetry.request('a', 'ok')")
    first.killed()
    assert house.requests() == 100
    house.part("worker-0").does("for _ in range(50): telemetry.request('a', 'ok')")
    assert house.requests() == 150


def test_no_count_goes_back_when_processes_are_killed_in_the_middle_of_counting(house: House) -> None:
    seen = 0.0
    files = set()
    for _ in range(4):
        part = house.part("worker-0")
        part.told("while True: telemetry.request('a', 'ok'); telemetry.stage('a', 'total', 0.01)")
        goal = seen + 1000
        while seen < goal:
            assert part.running.poll() is None
            before, seen = seen, house.requests()
            assert seen >= before
        part.killed()
        assert house.requests() >= seen
        files.add(frozenset(house.folder.iterdir()))
    assert len(files) == 1, "a restart leaves no file of its own"


def test_several_processes_count_as_one_would(house: House) -> None:
    alone = Telemetry()
    parts = [Telemetry(SharedValues(house.folder, name)) for name in ("engine", "worker-0")]
    for number in range(40):
        for telemetry in (alone, parts[number % 2]):
            telemetry.request("ab"[number % 2], "ok")
            telemetry.batch("a", 1, number)
            telemetry.lag(number / 8)
            telemetry.restarted("engine")
            for stage in get_args(Stage):
                telemetry.stage("a", stage, number / 1024)
    assert samples(parts[0]) == samples(parts[1]) == samples(alone)


def test_more_series_than_a_new_file_holds_are_kept_apart(house: House) -> None:
    part = house.part("engine")
    part.does("for m in range(50): telemetry.batch(f'model-{m}', 1, m + 1)")
    part.does("for m in range(50): telemetry.batch(f'model-{m}', 1, m + 1)")
    assert max(file.stat().st_size for file in house.folder.iterdir()) > 1 << 16
    read = samples(house.scraping)
    for number in range(50):
        labels = (("model", f"model-{number}"), ("version", "1"))
        assert read["foldserve_batch_rows_sum", labels] == 2 * (number + 1)
        assert read["foldserve_batch_rows_count", labels] == 2


def test_a_process_killed_as_it_makes_its_file_spoils_no_scrape(house: House) -> None:
    (house.folder / "counter_worker-0.db").touch()
    assert house.requests() == 0
    house.part("worker-0").does("telemetry.request('a', 'ok')")
    assert house.requests() == 1


def test_the_files_are_those_of_the_library(house: House) -> None:
    house.part("worker-0").does("telemetry.request('a', 'ok')")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(house.folder))
    assert registry.get_sample_value(REQUESTS, OK) == 1


def test_services_in_one_process_count_each_in_its_own_place(house: House) -> None:
    with directory() as elsewhere:
        alone = Telemetry()
        here = Telemetry(SharedValues(house.folder, "engine"))
        there = Telemetry(SharedValues(elsewhere, "engine"))
        for times, telemetry in enumerate((here, alone, there), start=1):
            for _ in range(times):
                telemetry.request("a", "ok")
        counts = [value(telemetry, REQUESTS, **OK) for telemetry in (here, alone, there)]
    assert counts == [1, 2, 3]


# The folder


def test_the_folder_is_ours_alone_and_goes_with_all_that_is_in_it() -> None:
    with directory() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        Telemetry(SharedValues(folder, "engine")).request("a", "ok")
        assert list(folder.iterdir())
    assert not folder.exists()


def test_the_folder_may_be_gone_before_its_end() -> None:
    with directory() as folder:
        folder.rmdir()
    assert not folder.exists()


def test_the_folder_lies_where_temporary_files_do_if_there_is_no_place_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.telemetry.shared_values._MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with directory() as folder:
        assert folder.parent == tmp_path
