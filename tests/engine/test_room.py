"""A version that would not fit into memory is refused before it is read; what is free the kernel says."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from service.engine.loading import load
from service.engine.memory import free_bytes, require_room
from service.errors import InvalidWeights, ModelRefused
from service.store import weights
from service.store.model_store import ModelStore, StoredModel

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
CPU = torch.device("cpu")
MEMINFO = """\
MemTotal:       24681992 kB
MemFree:        17235568 kB
MemAvailable:   22897876 kB
Buffers:          153412 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""
AVAILABLE = 22897876 * 1024
NO_LIMIT = "9223372036854771712\n"
# As a process in a container sees them: the files of its own group stand at the mount.
VERSION_1 = """\
9:name=systemd:/docker/3fc1
8:pids:/docker/3fc1
4:memory,hugetlb:/docker/3fc1
2:cpuacct:/docker/3fc1
0::/
"""
STAT_1 = "cache 3145728\nrss 10485760\ninactive_file 99\ntotal_cache 3145728\ntotal_inactive_file 2097152\n"
STAT_2 = "anon 10485760\nfile 3145728\nkernel_stack 98304\ninactive_file 2097152\nactive_file 1048576\n"


def root_of(folder: Path, groups: str, files: dict[str, str], meminfo: str = MEMINFO) -> Path:
    """A folder that holds what `/proc` and `/sys/fs/cgroup` hold on a machine."""
    for name, content in {"proc/meminfo": meminfo, "proc/self/cgroup": groups, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def version_1(group: str, limit: str, use: int) -> dict[str, str]:
    place = f"sys/fs/cgroup/memory{group}/memory"
    return {
        f"{place}.limit_in_bytes": limit,
        f"{place}.usage_in_bytes": f"{use}\n",
        f"{place}.stat": STAT_1,
    }


def version_2(group: str, limit: str, use: int) -> dict[str, str]:
    place = f"sys/fs/cgroup{group}/memory"
    return {f"{place}.max": limit, f"{place}.current": f"{use}\n", f"{place}.stat": STAT_2}


def test_without_a_group_that_limits_it_what_the_kernel_calls_available_is_free(tmp_path: Path) -> None:
    assert free_bytes(root_of(tmp_path, "0::/\n", {})) == AVAILABLE


def test_where_nothing_says_how_much_there_is_nothing_is_refused(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) == math.inf


@pytest.mark.parametrize("group", ["", "/docker/3fc1"], ids=["in a container", "outside"])
def test_in_a_group_of_version_1_its_limit_less_its_use_is_free(tmp_path: Path, group: str) -> None:
    """Less what it uses for files that nobody read lately: these pages are given up before any other."""
    root = root_of(tmp_path, VERSION_1, version_1(group, f"{512 * MIB}\n", 100 * MIB))
    assert free_bytes(root) == (512 - 100 + 2) * MIB


@pytest.mark.parametrize("path", ["/", "/kubepods/burstable/pod7"])
def test_in_a_group_of_version_2_its_limit_less_its_use_is_free(tmp_path: Path, path: str) -> None:
    root = root_of(tmp_path, f"0::{path}\n", version_2(path.rstrip("/"), f"{512 * MIB}\n", 100 * MIB))
    assert free_bytes(root) == (512 - 100 + 2) * MIB


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        (VERSION_1, version_1("", NO_LIMIT, 5 * MIB)),
        ("0::/\n", version_2("", "max\n", 5 * MIB)),
        ("0::/\n", version_2("", f"{AVAILABLE * 2}\n", 5 * MIB)),
    ],
    ids=["1", "2", "wide"],
)
def test_a_group_that_may_take_more_than_there_is_limits_nothing(
    tmp_path: Path, groups: str, files: dict[str, str]
) -> None:
    assert free_bytes(root_of(tmp_path, groups, files)) == AVAILABLE


@pytest.mark.parametrize("outer", ["", "/kubepods", "/kubepods/burstable"])
def test_a_group_further_out_limits_too(tmp_path: Path, outer: str) -> None:
    own = "/kubepods/burstable/pod7"
    files = version_2(own, "max\n", MIB) | version_2(outer, f"{64 * MIB}\n", 32 * MIB)
    assert free_bytes(root_of(tmp_path, f"0::{own}\n", files)) == (64 - 32 + 2) * MIB


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    files = version_2("/a/b", f"{99 * MIB}\n", 9 * MIB) | version_2("/a", f"{64 * MIB}\n", 32 * MIB)
    assert free_bytes(root_of(tmp_path, "0::/a/b\n", files)) == 34 * MIB


def test_a_group_that_is_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    assert free_bytes(root_of(tmp_path, "0::/\n", version_2("", f"{MIB}\n", 5 * MIB))) == 0


def test_this_machine_says_how_much_it_has() -> None:
    assert 0 < free_bytes() < 2**50


# Loading


@pytest.fixture
def digits(tmp_path: Path) -> StoredModel:
    """A copy of the shipped model."""
    shutil.copytree("model_store/digits", tmp_path / "digits")
    return ModelStore(tmp_path).open("digits")


def size_of(stored: StoredModel) -> int:
    return stored.weights_path.stat().st_size


def test_four_times_the_weights_must_be_free(digits: StoredModel) -> None:
    require_room(digits, free=4 * size_of(digits))
    with pytest.raises(ModelRefused):
        require_room(digits, free=4 * size_of(digits) - 1)


def test_the_refusal_says_the_numbers(digits: StoredModel) -> None:
    with digits.weights_path.open("r+b") as file:
        file.truncate(300 * MIB)
    with pytest.raises(ModelRefused) as caught:
        require_room(digits, free=1000.4 * MIB)
    assert str(caught.value) == (
        "digits/1: loading it takes about 1,200.0 MiB, 1,000.4 MiB are free; its weights are 300.0 MiB"
    )


def test_a_device_must_have_room_for_the_weights_once(digits: StoredModel) -> None:
    require_room(digits, free=math.inf, on_device=size_of(digits))
    with pytest.raises(ModelRefused, match=r"takes about 0\.\d MiB on the device, 0\.\d MiB are free"):
        require_room(digits, free=math.inf, on_device=size_of(digits) - 1)


def test_weights_in_half_precision_are_loaded_as_float32_and_need_room_for_that(digits: StoredModel) -> None:
    tensors = {name: tensor.float() for name, tensor in load_file(digits.weights_path).items()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    weights.write(digits.weights_path, {name: tensor.bfloat16() for name, tensor in tensors.items()})
    assert size_of(digits) < 3 * numbers
    require_room(digits, free=16 * numbers)
    with pytest.raises(ModelRefused):
        require_room(digits, free=16 * numbers - 1)


def test_a_version_that_does_not_fit_is_refused_before_its_weights_are_read(digits: StoredModel) -> None:
    digits.weights_path.write_bytes(b"\0" * MIB)  # which reading would complain of
    with pytest.raises(InvalidWeights):
        load(digits, CPU, free=4 * MIB)
    with pytest.raises(ModelRefused, match=r"^digits/1: loading it takes about 4\.0 MiB, 3\.0 MiB are free"):
        load(digits, CPU, free=3 * MIB)


def test_by_default_what_the_machine_has_left_is_what_must_do(digits: StoredModel) -> None:
    with digits.weights_path.open("r+b") as file:
        file.truncate(1 << 42)  # a file with a hole: 4 TiB that take no room on disk
    with pytest.raises(ModelRefused, match=r"takes about 16,777,216\.0 MiB, [1-9][\d.,]* MiB are free"):
        load(digits, CPU)


def test_what_is_wrong_with_the_file_is_said_by_whoever_reads_it(digits: StoredModel) -> None:
    digits.weights_path.unlink()
    require_room(digits, free=0)
    with pytest.raises(InvalidWeights, match="cannot be read"):
        load(digits, CPU, free=0)
