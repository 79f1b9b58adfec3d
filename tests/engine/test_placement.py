"""Placement: the engine and the workers have cores of their own where there are enough of them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from service.engine.placement import Placement, place, split
from service.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

CORES = [list(range(3, 3 + count)) for count in range(1, 17)]


@pytest.mark.parametrize("cores", CORES, ids=len)
@pytest.mark.parametrize("is_split", [True, False])
def test_every_core_belongs_to_the_engine_or_to_the_workers(cores: list[int], is_split: bool) -> None:
    for quota, workers in product(range(1, len(cores) + 1), range(20)):
        placed = split(Settings(workers=workers, split_cores="always" if is_split else "never"), cores, quota)
        assert placed.workers >= 1
        assert placed.workers == workers or not workers, "as many as were asked for"
        if placed.engine_cores is None or placed.worker_cores is None:
            assert placed.engine_cores is placed.worker_cores
            assert not is_split or quota < len(cores) or len(cores) < 3 or placed.workers >= len(cores)
            continue
        assert is_split
        assert quota == len(cores), "a quota is no set of cores"
        assert len(placed.worker_cores) == placed.workers
        assert len(placed.engine_cores) >= 1
        assert sorted(placed.worker_cores + placed.engine_cores) == cores


@pytest.mark.parametrize("cores", CORES, ids=len)
def test_unasked_the_engine_has_at_least_twice_the_cores_of_the_workers(cores: list[int]) -> None:
    placed = split(Settings(split_cores="always"), cores, len(cores))
    assert placed.workers <= max(1, len(cores) // 4)
    if placed.engine_cores is not None and placed.worker_cores is not None:
        assert len(placed.engine_cores) >= 2 * len(placed.worker_cores)
    else:
        assert len(cores) < 3


@pytest.mark.parametrize(("owned", "workers"), [(1, 1), (4, 1), (7, 1), (8, 2), (16, 4), (32, 8), (256, 8)])
def test_there_is_a_worker_for_every_four_cores_and_never_more_than_eight(owned: int, workers: int) -> None:
    assert split(Settings(), range(256), owned).workers == workers


def test_threads_that_were_asked_for_are_not_put_on_fewer_cores() -> None:
    assert split(Settings(threads=3, split_cores="always"), range(4), 4) == Placement(1, [0], [1, 2, 3])
    assert split(Settings(threads=4, split_cores="always"), range(4), 4) == Placement(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16])
def test_a_process_is_placed_on_the_cores_that_it_may_run_on(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = CORES[count - 1]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(cores))
    monkeypatch.setattr("service.engine.placement.owned_cores", lambda: count)
    seen = [place(Settings(split_cores="always")) for _ in range(200)]
    workers = max(1, count // 4)
    assert {placed.workers for placed in seen} == {workers}
    if count < 3:
        assert seen == [Placement(workers)] * 200
    else:
        assert all(sorted((p.worker_cores or []) + (p.engine_cores or [])) == cores for p in seen)
        assert {core for p in seen for core in p.worker_cores or []} == set(cores), "drawn by lot"
    assert place(Settings(split_cores="never")) == Placement(workers)
    assert place(Settings(workers=2)).workers == 2


@pytest.mark.parametrize(
    ("device", "has_driver", "is_split"),
    [("cpu", True, False), ("auto", False, False), ("auto", True, True), ("cuda:1", False, True)],
)
def test_where_the_engine_computes_on_the_cpu_no_core_is_set_aside(
    device: str, has_driver: bool, is_split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidiactl"
    if has_driver:
        driver.touch()
    monkeypatch.setattr("service.engine.placement._DRIVER", driver)
    assert (split(Settings(device=device), range(4), 4).engine_cores is not None) == is_split
