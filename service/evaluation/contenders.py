"""Contenders: the networks that answer the same images, unfolded ones and plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from service.engine.loading import load
from service.errors import InvalidConfiguration, ModelRefused
from service.evaluation.tally import Tally
from service.graph.precision import compute
from service.plan.plan import PRECISIONS
from service.plan.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from service.engine.unfolded import Unfolded
    from service.graph.capture import CapturedGraph
    from service.plan.plan import Plan
    from service.store.model_store import StoredModel


@dataclass(frozen=True)
class Contender:
    """One network in one precision."""

    network: Literal["unfolded", "folded"]
    precision: str
    serves: bool
    """Whether the service would compute in this one."""
    answer: Callable[[Tensor], Tensor]
    """From uint8 pixels `[N, C, H, W]` to logits `[N, classes]`."""
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class Refused:
    """A precision in which the version must not be served."""

    precision: str
    reason: str


def unfolded(stored: StoredModel, captured: CapturedGraph, dtype: torch.dtype) -> Contender:
    """The network as it was trained, computed in `dtype` on the CPU."""
    preprocessing = Preprocessing(stored.manifest.input.mean, stored.manifest.input.std)

    def answer(pixels: Tensor) -> Tensor:
        return compute(captured.module, preprocessing.normalised(pixels), dtype)

    return Contender("unfolded", str(dtype).removeprefix("torch."), False, answer)


def folded(
    stored: StoredModel, source: Unfolded, device: torch.device, serving: str, threads: int
) -> list[Contender | Refused]:
    """The plan in the serving precision, then those in all others that the device has, all from `source`.

    Of the others, one that is refused is there with the reason. Golden inputs of earlier are not looked at.
    Raises what `load` raises for the first.
    """
    first = _plan(stored, source, device, serving, threads)
    others = [_other(stored, source, device, name, threads) for name in precisions(device) if name != serving]
    return [Contender("folded", serving, True, first), *others]


def precisions(device: torch.device) -> list[str]:
    """Every precision that the device has."""
    return [name for name in PRECISIONS if _is_there(name, device)]


def _plan(stored: StoredModel, source: Unfolded, device: torch.device, precision: str, threads: int) -> Plan:
    def read(*_: object) -> Unfolded:
        return source

    return load(stored, device, precision=precision, threads=threads, check_golden=False, read=read).plan


def _other(
    stored: StoredModel, source: Unfolded, device: torch.device, precision: str, threads: int
) -> Contender | Refused:
    try:
        return Contender("folded", precision, False, _plan(stored, source, device, precision, threads))
    except ModelRefused as why:
        return Refused(precision, str(why))


def _is_there(precision: str, device: torch.device) -> bool:
    try:
        PRECISIONS[precision].on(device)
    except InvalidConfiguration:
        return False
    return True
