"""Devices: which one a plan runs on, and how it is described."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from service.errors import InvalidConfiguration
from service.plan.cores import owned_cores

if TYPE_CHECKING:
    from collections.abc import Iterator


def choose(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`; raises `InvalidConfiguration` where it is not there.

    `auto` is the first CUDA device, or the CPU where there is none. float32 stays float32 on CUDA:
    TF32, which torch allows for convolutions, would cost three decimal digits unasked.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise InvalidConfiguration(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InvalidConfiguration(
            f"device {name!r} was asked for, but this torch ({torch.__version__}) sees no CUDA device"
        )
    index = int(name.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise InvalidConfiguration(f"device {name!r}: there are {torch.cuda.device_count()} CUDA devices")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", index)


@contextmanager
def searching(*, allow_tf32: bool) -> Iterator[None]:
    """Let CUDA calls within search for cuDNN's fastest algorithm, with TF32 or without it."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, allow_tf32, allow_tf32
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def set_threads(wanted: int) -> None:
    """Let one computation on the CPU take so many threads; 0: one for each core that the process owns."""
    use_threads(wanted or owned_cores())


def use_threads(number: int) -> None:
    """Let one computation take so many threads from now on; where it does already, nothing is done.

    To set the number anew would empty torch's cache of oneDNN calls.
    """
    if number != torch.get_num_threads():
        torch.set_num_threads(number)


def free_bytes(device: torch.device) -> float:
    """What nobody has taken of the device's own memory; infinite for one that has none of its own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def describe(device: torch.device) -> str:
    """The device for a person: `cpu (4 threads)` or `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' if threads > 1 else ''})"
