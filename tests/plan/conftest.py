from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from .cudnn_operators import registered

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads are slower on tensors this small, much slower where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def _cudnn_operators() -> Iterator[None]:
    """The operators of the CUDA plan, computed on the CPU by what they are documented to mean."""
    library = registered()
    yield
    library._destroy()  # type: ignore[no-untyped-call]


@pytest.fixture
def no_layer_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of a few pixels, too, become oneDNN's, which would be faster as ATen calls."""
    monkeypatch.setattr("service.plan.onednn.is_small", lambda call, rows: False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
