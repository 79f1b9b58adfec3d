"""Devices by name, and what is said where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from service.errors import InvalidConfiguration
from service.plan.device import choose, describe, searching

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _tf32_restored() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:a", "cuda:1234", "cpu:0", " cpu"]
)
def test_a_name_of_no_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="is none of auto, cpu, cuda, cuda:N"):
        choose(name)


def test_cpu_is_the_cpu() -> None:
    assert choose("cpu") == torch.device("cpu")


def test_auto_is_the_cpu_where_there_is_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_is_refused_where_there_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidConfiguration, match=f"'{name}' was asked for, .* sees no CUDA device"):
        choose(name)


@pytest.mark.usefixtures("_tf32_restored")
def test_a_cuda_device_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose(name).index for name in ("auto", "cuda", "cuda:1")] == [0, 0, 1]
    assert not torch.backends.cudnn.allow_tf32
    with pytest.raises(InvalidConfiguration, match="there are 2 CUDA devices"):
        choose("cuda:2")


def arithmetic() -> tuple[bool, bool, bool]:
    """What is in force: cuDNN's search, TF32 in convolutions, TF32 in products."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32


@pytest.mark.usefixtures("_tf32_restored")
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("allow_tf32", [True, False])
def test_a_search_says_whether_tf32_is_allowed_and_then_all_is_as_it_was(
    allow_tf32: bool, outside: bool
) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = outside
    with searching(allow_tf32=allow_tf32):
        assert arithmetic() == (True, allow_tf32, allow_tf32)
    assert arithmetic() == (False, outside, outside)
    with pytest.raises(ZeroDivisionError), searching(allow_tf32=allow_tf32):
        _ = 1 / 0
    assert arithmetic() == (False, outside, outside)


@pytest.mark.parametrize(("threads", "said"), [(1, "cpu (1 thread)"), (2, "cpu (2 threads)")])
def test_the_cpu_is_described_with_its_threads(threads: int, said: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert describe(torch.device("cpu")) == said
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_device_is_described_with_its_name() -> None:
    assert describe(choose("auto")) == f"cuda:0 ({torch.cuda.get_device_name(0)})"
