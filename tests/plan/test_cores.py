"""How many cores this process can keep busy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from service.plan.cores import owned_cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7})


@pytest.mark.usefixtures("_four_cores")
@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {}, 4),
        ("0::/", {"cpu.max": "max 100000\n"}, 4),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/", {"cpu.max": "6400000 100000\n"}, 4),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/of/the/host", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("5:memory:/\n4:cpu:/", {"cpu.max": "200000 100000\n"}, 4),
    ],
    ids=str,
)
def test_a_process_owns_the_cores_it_may_run_on_or_its_quota(
    tmp_path: Path, own: str, files: dict[str, str], cores: int
) -> None:
    written = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": own, **written}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert owned_cores(tmp_path) == cores
