from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing import assert_close

from service.network.adopt import (
    BatchNormAct2d,
    FrozenBatchNorm2d,
    FrozenBatchNormAct2d,
    adopt,
    foreign_norms,
    norms,
)
from service.network.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d

# --- stand-ins for what other libraries define -------------------------------------------------------


class TimmAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a forward of its own, then drop and act."""

    def __init__(self, num_features: int, act: nn.Module | None = None, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.drop = nn.Dropout(0.5)
        self.act = act or nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        answer: Tensor = self.act(self.drop(super().forward(input)))
        return answer


class TimmSyncAct(nn.SyncBatchNorm):
    """As timm's: given its drop and act by a conversion."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        answer: Tensor = self.act(self.drop(super().forward(input)))
        return answer


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d: four buffers and an eps."""

    def __init__(self, num_features: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), value))

    def scale_and_shift(self, eps: float) -> tuple[Tensor, Tensor]:
        scale = self.get_buffer("weight") * (self.get_buffer("running_var") + eps).rsqrt()
        shift = self.get_buffer("bias") - self.get_buffer("running_mean") * scale
        return scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(self.eps)
        return x * scale + shift


class Detectron(Frozen):
    """As detectron2's: the same structure, computed by torch."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = map(self.get_buffer, ["running_mean", "running_var", "weight", "bias"])
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)


class DetrFrozen(Frozen):
    """As DETR's: the eps is written into the forward."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        del self.eps

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(1e-5)
        return x * scale + shift


class FrozenAct(Frozen):
    """As timm's FrozenBatchNormAct2d."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.act(self.drop(super().forward(x)))
        return answer


class Renamed(nn.BatchNorm2d):
    """A subclass which changes no answer."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, eps=1e-3)

    def extra_repr(self) -> str:
        return "renamed"


# --- stand-ins for what must be left alone -----------------------------------------------------------


class Doubling(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return 2 * super().forward(input)


class ActFirst(TimmAct):
    """Looks like a pair, but runs the activation before the norm."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        answer: Tensor = F.batch_norm(
            F.relu(input), self.running_mean, self.running_var, self.weight, self.bias, self.training
        )
        return answer


class TracksNothing(TimmAct):
    """Looks like a pair in every answer, but never moves its statistics."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        mean, var = (None, None) if self.training else (self.running_mean, self.running_var)
        y = F.batch_norm(input, mean, var, self.weight, self.bias, self.training, eps=self.eps)
        answer: Tensor = self.act(self.drop(y))
        return answer


class DoublesInEvaluation(TimmAct):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return super().forward(input) * (1 if self.training else 2)


class Called(nn.BatchNorm2d):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return -super().__call__(*args, **kwargs)


class NeverTrains(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> NeverTrains:
        super().train(False)
        return self


class FrozenWithoutEps(Frozen):
    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(0)
        return x * scale + shift


class FrozenOnlyInEvaluation(Detectron):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return F.batch_norm(
            x, None, None, self.get_buffer("weight"), self.get_buffer("bias"), True, eps=self.eps
        )


class FrozenAndPicky(Frozen):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError(x.shape)


class RunningObservations(nn.Module):
    """Not a BatchNorm, but keeps a running mean and variance."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))


class Extended(nn.BatchNorm2d):
    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.register_buffer("gate", torch.ones(num_features))


def hooked() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.register_forward_hook(lambda module, args, output: -output)
    return norm


def patched() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.forward = torch.neg  # type: ignore[method-assign] # what people do
    return norm


def parametrised() -> nn.Module:
    return parametrize.register_parametrization(nn.BatchNorm2d(3), "weight", nn.Softplus())


def with_a_child() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.extra = nn.ReLU()
    return norm


# --- what a user sees --------------------------------------------------------------------------------


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def answer(module: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)  # dropout in training
    y: Tensor = module(x.clone())
    return y


def materialised() -> nn.Module:
    norm = nn.LazyBatchNorm2d()
    norm(torch.randn(2, 3, 4, 4))
    return norm


def synchronised_pair() -> nn.Module:
    norm = TimmSyncAct(3)
    norm.drop, norm.act = nn.Identity(), nn.SiLU()
    return norm


def without_bias() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.bias = None  # type: ignore[assignment] # torch 2.13 has bias=False, 2.11 has not
    return norm


IMAGES = (4, 3, 5, 6)
ADOPTED = [
    (lambda: nn.BatchNorm1d(3), BatchNorm1d, (4, 3)),
    (lambda: nn.BatchNorm1d(3, momentum=None), BatchNorm1d, (4, 3, 5)),
    (lambda: nn.BatchNorm2d(3, eps=0.1, momentum=0.7), BatchNorm2d, IMAGES),
    (lambda: nn.BatchNorm3d(3), BatchNorm3d, (4, 3, 2, 3, 4)),
    (lambda: nn.BatchNorm2d(3, affine=False), BatchNorm2d, IMAGES),
    (lambda: nn.BatchNorm2d(3, track_running_stats=False), BatchNorm2d, IMAGES),
    (without_bias, BatchNorm2d, IMAGES),
    (lambda: nn.SyncBatchNorm(3), BatchNorm, IMAGES),
    (materialised, BatchNorm2d, IMAGES),
    (lambda: Renamed(3), BatchNorm2d, IMAGES),
    (lambda: TimmAct(3), BatchNormAct2d, IMAGES),
    (lambda: TimmAct(3, nn.PReLU(3), eps=0.1, affine=False), BatchNormAct2d, IMAGES),
    (synchronised_pair, BatchNormAct2d, IMAGES),
    (lambda: Frozen(3), FrozenBatchNorm2d, IMAGES),
    (lambda: Detectron(3), FrozenBatchNorm2d, IMAGES),
    (lambda: DetrFrozen(3), FrozenBatchNorm2d, IMAGES),
    (lambda: FrozenAct(3), FrozenBatchNormAct2d, IMAGES),
]
LEFT = {
    "drop, act": (lambda: ActFirst(3), "does not answer as a BatchNormAct2d"),
    "tracking": (lambda: TracksNothing(3), "does not answer as a BatchNormAct2d"),
    "evaluation": (lambda: DoublesInEvaluation(3), "does not answer as a BatchNormAct2d"),
    "call": (lambda: Called(3), "more than a BatchNorm"),
    "forward": (lambda: Doubling(3), "more than a BatchNorm"),
    "train": (lambda: NeverTrains(3), "more than a BatchNorm"),
    "patched": (patched, "more than a BatchNorm"),
    "parametrised": (parametrised, "more than a BatchNorm"),
    "child": (with_a_child, "more than a BatchNorm"),
    "eps": (lambda: FrozenWithoutEps(3), "does not answer as a FrozenBatchNorm2d"),
    "training": (lambda: FrozenOnlyInEvaluation(3), "does not answer as a FrozenBatchNorm2d"),
    "raising": (lambda: FrozenAndPicky(3), "does not answer as a FrozenBatchNorm2d"),
    "observations": (RunningObservations, "more than a BatchNorm"),
    "buffer": (lambda: Extended(3), "holds gate"),
    "hook": (hooked, "has _forward_hooks"),
    "lazy": (nn.LazyBatchNorm2d, "lazy"),
}


@pytest.mark.parametrize(("make", "kind", "shape"), ADOPTED)
@pytest.mark.parametrize("training", [True, False])
def test_an_adopted_norm_answers_and_learns_as_before(
    make: Any, kind: type[BatchNorm], shape: tuple[int, ...], training: bool
) -> None:
    foreign = randomised(make()).train(training)
    ours = adopt(copy.deepcopy(foreign))
    assert type(ours) is kind
    assert ours.training == training
    for seed in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        assert_close(answer(ours, x), answer(foreign, x))
        assert_close(dict(ours.state_dict()), dict(foreign.state_dict()))


@pytest.mark.parametrize(("make", "kind", "shape"), ADOPTED)
def test_an_adopted_norm_keeps_its_very_tensors_under_their_names(
    make: Any, kind: type[BatchNorm], shape: tuple[int, ...]
) -> None:
    foreign = make().requires_grad_(False).double()
    ours = adopt(foreign)
    before, after = foreign.state_dict(keep_vars=True), ours.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in foreign.named_parameters()]
    ours.load_state_dict(foreign.state_dict())


@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT)
def test_what_may_be_more_than_a_batch_norm_is_left_alone_and_reported(make: Any, reason: str) -> None:
    norm = make()
    network = nn.Sequential(nn.Conv2d(3, 3, 1), norm)
    assert adopt(network) is network
    assert network[1] is norm
    assert norms(network) == {}
    assert list(foreign_norms(network)) == ["1"]
    assert reason in foreign_norms(network)["1"]


def test_a_module_which_keeps_no_running_statistics_is_no_norm() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3), nn.InstanceNorm2d(3, track_running_stats=True)
    )
    before = list(network)
    adopt(network)
    assert list(network) == before
    assert foreign_norms(network) == {}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.again = self.norm
        self.pair = TimmAct(3, nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pair(self.again(self.conv(self.norm(x))))
        return y


def test_a_norm_used_twice_stays_one_object() -> None:
    block = Block()
    network = nn.Sequential(block, block.norm)
    adopt(network)
    (norm,) = {id(owner): owner for owner in (block.norm, block.again, network[1])}.values()
    assert norms(network)["0.norm"] is norm


def test_an_adopted_pair_whose_activation_is_a_norm_adopts_that_too() -> None:
    pair = adopt(TimmAct(3, nn.BatchNorm2d(3)))
    assert list(norms(pair)) == ["", "act"]


def test_buffers_outside_the_state_dict_stay_outside() -> None:
    frozen = Frozen(3)
    frozen.register_buffer("bias", torch.zeros(3), persistent=False)
    ours = adopt(frozen)
    assert type(ours) is FrozenBatchNorm2d
    assert list(ours.state_dict()) == ["weight", "running_mean", "running_var"]


def test_norms_inside_an_adopted_pair_are_adopted_too() -> None:
    block = adopt(Block())
    assert list(norms(block)) == ["norm", "pair", "pair.act.0"]
    assert foreign_norms(block) == {}


def test_a_network_keeps_its_names_answers_and_optimiser() -> None:
    torch.manual_seed(0)
    original = nn.Sequential(Block(), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    network = copy.deepcopy(original)
    optimisers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (original, network)]
    adopt(network)
    assert [name for name, _ in network.named_modules()] == [name for name, _ in original.named_modules()]
    for _ in range(3):
        x = torch.randn(4, 3, 5, 6)
        for net, optimiser in zip((original, network), optimisers, strict=True):
            optimiser.zero_grad()
            answer(net, x).square().mean().backward()  # type: ignore[no-untyped-call] # torch's
            optimiser.step()
    assert_close(dict(network.state_dict()), dict(original.state_dict()))
    assert_close(answer(network.eval(), x), answer(original.eval(), x))


def test_norms_come_by_their_first_name_in_the_order_of_registration() -> None:
    network = nn.ModuleDict({"z": nn.BatchNorm2d(3), "a": nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4))})
    network["b"] = network["z"]
    assert norms(network) == {}
    found = norms(adopt(network))
    assert {name: norm.num_features for name, norm in found.items()} == {"z": 3, "a.1": 4}
    assert list(found) == ["z", "a.1"]
    assert list(norms(BatchNorm2d(3))) == [""]


def test_adopting_twice_changes_nothing_more() -> None:
    network = adopt(Block())
    before = norms(network)
    assert adopt(network) is network
    assert norms(network) == before


def test_adopting_draws_no_random_numbers_and_leaves_every_statistic() -> None:
    network = nn.Sequential(Block(), Frozen(3), FrozenAct(3))
    before, random = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    adopt(network)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)


def test_a_network_without_memory_is_adopted_without_memory() -> None:
    with torch.device("meta"):
        network = nn.Sequential(Block(), Frozen(3), FrozenAct(3))
    adopt(network)
    assert foreign_norms(network) == {}
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


def test_a_frozen_norm_stays_frozen_in_training_and_loads_checkpoints_that_count() -> None:
    norm = adopt(randomised(Frozen(3))).train()
    before = copy.deepcopy(norm.state_dict())
    norm(torch.randn(1, 3, 1, 1))
    assert_close(dict(norm.state_dict()), dict(before), rtol=0, atol=0)
    norm.load_state_dict(nn.BatchNorm2d(3).state_dict())
    with pytest.raises(ValueError, match="expected 4D input"):
        norm(torch.randn(3, 5, 6))


def test_a_scripted_norm_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is, from torch 2.13 on
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(3)))
    assert adopt(scripted) is scripted
    assert foreign_norms(scripted) == {"0": "it is scripted"}
