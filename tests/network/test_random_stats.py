"""Random statistics: one seed, one result, and nothing but norms is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from service.network.batch_norm import BatchNorm2d
from service.network.random_stats import randomise

STATISTICS = ("running_mean", "running_var", "weight", "bias")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.BatchNorm2d(64),
        nn.PReLU(64),
        nn.GroupNorm(4, 64),
        nn.Sequential(nn.Conv2d(64, 64, 1), BatchNorm2d(64)),
        nn.LayerNorm(4),
    )


def state(net: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(net.state_dict())


def norms(net: nn.Sequential) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | BatchNorm2d)]


def test_the_same_seed_gives_the_same_tensors() -> None:
    net, again = network(), network()
    randomise(net, 7)
    torch.rand(3)  # what others draw from torch's own generator makes no difference
    randomise(again, 7)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in again.state_dict().items())


def test_randomising_twice_changes_nothing_more() -> None:
    net = network()
    randomise(net, 7)
    once = state(net)
    randomise(net, 7)
    assert all(torch.equal(once[name], tensor) for name, tensor in net.state_dict().items())


def test_another_seed_gives_other_statistics() -> None:
    net, other = network(), network()
    randomise(net, 7)
    randomise(other, 8)
    for left, right in zip(norms(net), norms(other), strict=True):
        for name in STATISTICS:
            assert not torch.equal(getattr(left, name), getattr(right, name))


def test_two_norms_of_one_network_differ() -> None:
    net = network()
    randomise(net, 0)
    first, second = norms(net)
    for name in STATISTICS:
        assert not torch.equal(getattr(first, name), getattr(second, name))


def test_every_statistic_of_every_norm_is_new_and_nothing_else() -> None:
    net = network()
    before = state(net)
    randomise(net, 3)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {f"{norm}.{name}" for norm in ("1", "4.1") for name in STATISTICS}


def test_the_random_numbers_of_others_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    net = network()
    torch.manual_seed(0)
    randomise(net, 5)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("seed", range(5))
def test_variances_and_scales_are_positive_and_sane(seed: int) -> None:
    net = network()
    randomise(net, seed)
    for norm in norms(net):
        for name in ("running_var", "weight"):
            tensor = norm.state_dict()[name]
            assert 0.5 <= float(tensor.min()) < 0.7
            assert 1.3 < float(tensor.max()) <= 1.5
        for name in ("running_mean", "bias"):
            tensor = norm.state_dict()[name]
            assert 0.05 < float(tensor.std()) < 0.15
            assert float(tensor.abs().max()) < 1


def test_a_norm_without_scale_and_shift_gets_statistics() -> None:
    norm = nn.BatchNorm1d(8, affine=False)
    randomise(norm, 0)
    assert float(norm.state_dict()["running_mean"].abs().max()) > 0
    assert norm.weight is None


def test_a_norm_without_statistics_is_left_alone() -> None:
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    before = state(norm)
    randomise(norm, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())


def test_a_norm_in_double_or_half_keeps_its_dtype() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        norm = nn.BatchNorm1d(8).to(dtype)
        randomise(norm, 0)
        assert {getattr(norm, name).dtype for name in STATISTICS} == {dtype}
        assert bool((norm.state_dict()["running_var"] >= 0.5).all())
        assert norm.weight.requires_grad
