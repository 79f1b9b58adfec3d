"""The observation: what it sees at the inputs of norms is what torch's own layers are given."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from service.graph.capture import capture
from service.graph.norm_inputs import norm_inputs
from service.graph.written_norms import written_norms
from service.network import catalog
from service.network.adopt import adopt, norms
from service.network.random_stats import randomise
from service.plan.observation import Observation
from service.plan.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CPU = torch.device("cpu")


def observation(network: nn.Module, row: list[int], names: list[str] | None = None) -> Observation:
    captured = capture(network, torch.zeros(2, *row))
    known = norms(network)
    found = norm_inputs(captured, {**known, **written_norms(captured, known)})
    watched = [found[name] for name in (names or found)]
    return Observation(captured.module, watched, Preprocessing([0.5] * row[0], [0.25] * row[0]), CPU)


def seen(observed: Observation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    observed.begin(rows)
    observed.run(math.inf)
    return observed.finished()


def hooked(network: nn.Module, x: Tensor, layers: list[nn.Module]) -> tuple[np.ndarray, np.ndarray]:
    """By torch's hooks and numpy: the mean and variance over each row's pixels, `[N, C]`."""
    found: dict[nn.Module, list[np.ndarray]] = {layer: [] for layer in layers}
    removable = [
        layer.register_forward_pre_hook(lambda layer, given: found[layer].append(given[0].double().numpy()))
        for layer in layers
    ]
    with torch.inference_mode():
        network.eval()(x)
    for hook in removable:
        hook.remove()
    flat = [np.concatenate([x.reshape(*x.shape[:2], -1) for x in found[layer]], 2) for layer in layers]
    return np.concatenate([x.mean(2) for x in flat], 1), np.concatenate([x.var(2) for x in flat], 1)


def require_same(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def built(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    network = catalog.build(architecture, {})
    randomise(network, 0)
    return network.eval()


@pytest.mark.parametrize(
    ("architecture", "row"), [("digits", [1, 8, 8]), ("resnet18", [3, 64, 64]), ("mobilenet_v2", [3, 64, 64])]
)
def test_every_norm_of_an_architecture_is_seen_in_the_networks_order(
    architecture: str, row: list[int]
) -> None:
    network, rows = built(architecture), torch.rand(3, *row)
    require_same(
        seen(observation(network, row), rows.numpy()),
        hooked(network, rows, list(norms(network).values())),
    )


def test_pixels_are_normalised_first() -> None:
    network, observed = built("digits"), observation(built("digits"), [1, 8, 8])
    pixels = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    wanted = hooked(network, (pixels / 255 - 0.5) / 0.25, list(norms(network).values()))
    require_same(seen(observed, pixels.numpy()), wanted)


def test_a_norm_alone_is_seen_and_nothing_behind_it_is_kept() -> None:
    network = built("resnet18")
    first, last = observation(network, [3, 64, 64], ["bn1"]), observation(network, [3, 64, 64])
    rows = torch.rand(2, 3, 64, 64)
    require_same(seen(first, rows.numpy()), hooked(network, rows, [network.get_submodule("bn1")]))
    assert first.nbytes == 64 * 3 * 7 * 7 * 4
    assert last.nbytes > 100 * first.nbytes


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(torch.relu(self.bn(x))))
        return y.mean((2, 3))


def test_a_norm_that_is_called_twice_and_reads_the_input_has_the_pixels_of_both_calls() -> None:
    network = adopt(Twice().eval())
    rows = torch.rand(4, 3, 9, 9)
    observed, calls = observation(network, [3, 9, 9]), list[np.ndarray]()
    network.get_submodule("bn").register_forward_pre_hook(lambda _, x: calls.append(x[0].numpy()))
    with torch.inference_mode():
        network(rows)
    mean, var = seen(observed, rows.numpy())
    first, second = (x.reshape(4, 3, -1) for x in calls)
    np.testing.assert_allclose(mean, (first.mean(2) + second.mean(2)) / 2, rtol=1e-3, atol=1e-5)
    square = ((first**2).mean(2) + (second**2).mean(2)) / 2
    np.testing.assert_allclose(var, square - mean**2, rtol=1e-3, atol=1e-5)


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.Module()
        for name, value in {"running_mean": 1.5, "running_var": 2.0, "weight": 0.5, "bias": 3.0}.items():
            self.norm.register_buffer(name, torch.full((4,), value))

    def forward(self, x: Tensor) -> Tensor:
        n, x = self.norm, self.conv(x)
        scale = n.weight * torch.rsqrt(n.running_var + 1e-5)  # type: ignore[operator, arg-type]
        shift = n.bias - n.running_mean * scale  # type: ignore[operator]
        return (x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).mean((2, 3))


def test_a_norm_that_is_written_out_by_hand_is_seen() -> None:
    network, rows = ByHand().eval(), torch.rand(4, 3, 9, 9)
    mean, var = seen(observation(network, [3, 9, 9], ["norm"]), rows.numpy())
    with torch.inference_mode():
        x = network.conv(rows).flatten(2)
    np.testing.assert_allclose(mean, x.mean(2), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(var, x.var(2, correction=0), rtol=1e-3, atol=1e-5)


def test_half_precision_weights_are_computed_in_float32() -> None:
    network = built("digits")
    rows = torch.rand(2, 1, 8, 8)
    rounded = built("digits").bfloat16()
    captured = capture(rounded, torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16))
    found = norm_inputs(captured, norms(rounded))
    observed = Observation(captured.module, list(found.values()), Preprocessing([0.0], [1.0]), CPU)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.bfloat16().float()
    require_same(seen(observed, rows.numpy()), hooked(network, rows, list(norms(network).values())))


def test_it_can_be_left_between_any_two_calls_and_taken_up_again() -> None:
    network, rows = built("digits"), torch.rand(2, 1, 8, 8)
    observed = observation(network, [1, 8, 8])
    pieces = _in_pieces(observed, rows.numpy(), time.monotonic)
    assert pieces > 5
    require_same(observed.finished(), hooked(network, rows, list(norms(network).values())))


def _in_pieces(observed: Observation, rows: np.ndarray, now: Callable[[], float]) -> int:
    observed.begin(rows)
    pieces = 0
    while observed.is_running:
        observed.run(now())
        pieces += 1
    return pieces


def test_rows_that_are_given_up_leave_nothing_behind() -> None:
    observed = observation(built("digits"), [1, 8, 8])
    observed.begin(np.zeros((1, 1, 8, 8), np.float32))
    observed.run(0.0)
    observed.forget()
    assert not observed.is_running
    assert observed._values == {}
