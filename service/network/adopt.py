"""The BatchNorms of a foreign network become ours, statistics and all.

What a foreign norm does is read from its class where that is torch's own. Where it has a forward of
its own (frozen norms, norm+activation pairs) its structure suggests one of our layers, and a copy of
it with random statistics must then answer exactly as that layer does, in evaluation and in training.
Anything else is left as it is, which is safe, because the fold works on the graph and not on classes;
`foreign_norms` says what was left and why.
"""

from __future__ import annotations

import copy
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from service.network.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d

if TYPE_CHECKING:
    from torch import Tensor

_TENSORS = {"weight", "bias", "running_mean", "running_var"}
_AFTER = {"drop", "act"}
_HARMLESS = {"extra_repr", "reset_parameters", "_check_input_dim"}  # they do not change an answer
_BY_RANK = {
    nn.BatchNorm1d._check_input_dim: BatchNorm1d,
    nn.BatchNorm2d._check_input_dim: BatchNorm2d,
    nn.BatchNorm3d._check_input_dim: BatchNorm3d,
}


class BatchNormAct2d(BatchNorm2d):
    """Our layer, then its submodules `drop` and `act`: the pair that timm uses, names and all."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """`act(drop(norm(x)))`, x and the answer `[N, C, H, W]`; raises what `BatchNorm2d` raises."""
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class FrozenBatchNorm2d(BatchNorm2d):
    """Our layer with running statistics in training, too; its weight and bias are buffers.

    Detection networks use it, as torchvision's and detectron2's of the same name.
    """

    def _running_statistics(self) -> tuple[Tensor, Tensor] | None:
        mean, var = self.running_mean, self.running_var
        return None if mean is None or var is None else (mean, var)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # a checkpoint from before it was frozen
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FrozenBatchNormAct2d(FrozenBatchNorm2d, BatchNormAct2d):
    """The frozen norm, then its submodules `drop` and `act`."""


def adopt(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm of a network with ours, in place.

    Ours takes over the very tensors of the norm it replaces, so dtype, device, requires_grad, tied
    weights and optimisers stay right, and so do the network's state-dict keys and module names. A
    norm registered twice stays one object. Copy the network first to keep the original.

    Adopted: torch's BatchNorm1d, 2d, 3d, SyncBatchNorm (ours does not synchronise) and subclasses
    with the same forward; frozen norms and norm+activation pairs, where they prove to be ones.

    Args:
        module: any network, on any device, meta included.

    Returns:
        The same module, or our layer where `module` itself is a norm.
    """
    modules = list(module.modules())
    ours = {old: new for old in modules if isinstance(new := _judge(old), BatchNorm)}
    for parent in (*modules, *ours.values()):
        for name, child in parent._modules.items():
            if child in ours:
                parent._modules[name] = ours[child]
    return ours.get(module, module)


def norms(module: nn.Module) -> dict[str, BatchNorm]:
    """Every norm of ours in a network by its first name, in the order of registration."""
    return {name: norm for name, norm in module.named_modules() if isinstance(norm, BatchNorm)}


def foreign_norms(module: nn.Module) -> dict[str, str]:
    """Every BatchNorm-like module which `adopt` leaves as it is, by its first name, and why."""
    verdicts = ((name, _judge(candidate)) for name, candidate in module.named_modules())
    return {name: verdict for name, verdict in verdicts if isinstance(verdict, str)}


def _judge(candidate: nn.Module) -> BatchNorm | str | None:
    """Our layer in its place, the reason why there is none, or None for what is no foreign norm."""
    if not _is_foreign_norm(candidate):
        return None
    if reason := _obstacle(candidate):
        return reason
    kind = _kind(candidate)
    if kind is None:
        return "its class or its submodules make it more than a BatchNorm"
    if issubclass(kind, (BatchNormAct2d, FrozenBatchNorm2d)) and not _proven(candidate, kind):
        return f"it does not answer as a {kind.__name__} does"
    return _rebuilt(candidate, kind)


def _is_foreign_norm(candidate: nn.Module) -> bool:
    if isinstance(candidate, (BatchNorm, _InstanceNorm)):
        return False
    buffers = {name for name, _ in candidate.named_buffers(recurse=False)}
    return isinstance(candidate, _BatchNorm) or {"running_mean", "running_var"} <= buffers


def _obstacle(foreign: nn.Module) -> str | None:
    if isinstance(foreign, torch.jit.ScriptModule):
        return "it is scripted"
    if any(map(is_lazy, (*foreign.parameters(recurse=False), *foreign.buffers(recurse=False)))):
        return "it is lazy and has not seen an input"
    if hooks := [name for name, value in vars(foreign).items() if name.endswith("_hooks") and value]:
        return f"it has {', '.join(hooks)}"
    if extra := {*foreign._parameters, *foreign._buffers} - _TENSORS - {"num_batches_tracked"}:
        return f"it holds {', '.join(sorted(extra))}"
    return None


def _kind(foreign: nn.Module) -> type[BatchNorm] | None:
    alone, paired = not foreign._modules, set(foreign._modules) == _AFTER
    if isinstance(foreign, _BatchNorm):
        overrides = _overrides(foreign)
        if alone and not overrides:
            return _BY_RANK.get(type(foreign)._check_input_dim, BatchNorm)
        return BatchNormAct2d if paired and overrides == {"forward"} else None
    if foreign._parameters or not set(foreign._buffers) >= _TENSORS:
        return None
    return FrozenBatchNorm2d if alone else FrozenBatchNormAct2d if paired else None


def _overrides(foreign: _BatchNorm) -> set[str]:
    own = takewhile(lambda cls: not cls.__module__.startswith("torch.nn."), type(foreign).__mro__)
    names = {name for cls in own for name in vars(cls) if hasattr(nn.BatchNorm2d, name)}
    harmless = _HARMLESS | {name for name in names if name.startswith("__") and name != "__call__"}
    return (names | {"forward"} & set(vars(foreign))) - harmless


def _rebuilt(foreign: nn.Module, kind: type[BatchNorm]) -> BatchNorm:
    ours = kind(
        num_features=_num_features(foreign),
        eps=getattr(foreign, "eps", 1e-5),
        momentum=getattr(foreign, "momentum", 0.1),
        affine=getattr(foreign, "affine", True),
        track_running_stats=getattr(foreign, "track_running_stats", True),
        device="meta",
    )
    ours.training = foreign.training
    ours._parameters = dict(foreign._parameters)
    ours._buffers = dict(foreign._buffers)
    ours._buffers.setdefault("num_batches_tracked", None)  # frozen norms have none
    ours._modules = dict(foreign._modules)
    ours._non_persistent_buffers_set = set(foreign._non_persistent_buffers_set)
    return ours


def _num_features(foreign: nn.Module) -> int:
    if isinstance(foreign, _BatchNorm):
        return foreign.num_features
    return len(foreign.get_buffer("running_mean"))


def _proven(foreign: nn.Module, kind: type[BatchNorm]) -> bool:
    try:
        theirs = _with_random_values(foreign)
        return all(_alike(theirs, _rebuilt(copy.deepcopy(theirs), kind), mode) for mode in (False, True))
    except Exception:  # noqa: BLE001 - a foreign forward may raise anything, and then proves nothing
        return False


@torch.no_grad()
def _with_random_values(foreign: nn.Module) -> nn.Module:
    twin = copy.deepcopy(foreign).to_empty(device="cpu").double()
    generator = torch.Generator().manual_seed(0)
    for tensor in (*twin.parameters(), *twin.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.zero_()
    return twin


@torch.no_grad()
def _alike(theirs: nn.Module, ours: BatchNorm, training: bool) -> bool:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, ours.num_features, 3, 5, dtype=torch.float64, generator=generator)
    outcomes = []
    for norm in (theirs.train(training), ours.train(training)):
        for after in norm.children():
            after.eval()  # dropout in training would answer differently every time
        outcomes.append([norm.forward(x.clone()), *norm.state_dict().values()])
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*outcomes, strict=True))
