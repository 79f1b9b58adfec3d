"""The probe looks to the norms like what they were trained on, and is the same on every machine."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from service.graph.capture import CapturedGraph, capture
from service.graph.probe import mismatch, noise, probe
from service.network import catalog
from service.store import weights
from service.store.model_store import ModelStore

from .networks import normal, trained

SHAPE = [2, 3, 32, 32]


def smooth(rows: int) -> Tensor:
    """What a camera might see: `[rows, 3, 32, 32]`, mostly low frequencies."""
    coarse = torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (32, 32), mode="bicubic")


def trained_on(rows: Tensor) -> CapturedGraph:
    """Two layers whose running statistics are those of `rows`."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, momentum=None), nn.ReLU()),
        *(nn.Conv2d(16, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU()),
    )
    with torch.no_grad():
        net.train()(rows)
    return capture(net.eval(), torch.zeros(SHAPE))


def test_noise_has_mean_0_and_variance_1_in_every_channel() -> None:
    for exponent in (0.0, 1.0, 2.0):
        rows = noise(SHAPE, exponent)
        assert (rows.dtype, list(rows.shape)) == (torch.float32, SHAPE)
        assert float(rows.mean((0, 2, 3)).abs().max()) < 1e-3
        assert float((rows.var((0, 2, 3)) - 1).abs().max()) < 1e-2


def test_its_amplitude_falls_with_the_frequency_to_the_power_of_the_exponent() -> None:
    for exponent in (0.0, 1.0, 2.0):
        spectrum = (
            torch.fft.fft2(noise([2, 3, 128, 128], exponent).double()).abs().square().mean((0, 1)).sqrt()
        )
        slow, fast = spectrum[0, 4:8].mean(), spectrum[0, 16:32].mean()
        assert float(torch.log2(slow / fast)) == pytest.approx(2 * exponent, abs=0.5)


@pytest.mark.parametrize("shape", [[2, 5], [2, 5, 7], [3, 1, 4, 5, 6], [2, 3, 1, 1], [2, 3, 1, 9]], ids=str)
@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_noise_has_any_shape(shape: list[int], exponent: float) -> None:
    rows = noise(shape, exponent)
    assert list(rows.shape) == shape
    assert bool(rows.isfinite().all())
    assert not torch.equal(rows[0], rows[1])


def test_noise_is_the_same_on_every_machine() -> None:
    """Written down from one; what is rounded to 1/1024 hides the last bits of transforms and sums."""
    rows = noise([2, 3, 32, 32], 2.0)
    assert torch.equal(rows * 1024, (rows * 1024).round())
    digest = hashlib.sha256((rows * 1024).short().numpy().astype("<i2").tobytes()).hexdigest()
    assert digest[:16] == "b7959668951a43bf"


def test_of_statistics_that_agree_nothing_is_amiss() -> None:
    rows = smooth(4)
    assert mismatch(trained_on(rows).module, rows) < 1e-2
    assert mismatch(trained_on(rows).module, 2 * rows) > 0.1
    assert mismatch(trained_on(rows).module, rows + 3) > 0.1


def test_a_norm_counts_the_shift_of_its_mean_and_the_ratio_of_variances() -> None:
    norm = nn.BatchNorm2d(3)  # mean 0, variance 1
    graph = capture(norm.eval(), torch.zeros(SHAPE))
    rows = noise(SHAPE, 0.0)
    assert mismatch(graph.module, rows) == pytest.approx(0, abs=1e-4)
    assert mismatch(graph.module, rows + 0.5) == pytest.approx(0.25, rel=1e-2)
    assert mismatch(graph.module, 4 * rows) == pytest.approx(math.log(16) ** 2 / 4, rel=1e-2)


def test_what_is_no_number_is_as_far_as_can_be() -> None:
    graph = trained_on(smooth(4))
    assert mismatch(graph.module, torch.full(SHAPE, float("nan"))) == float("inf")


def test_a_network_that_was_trained_on_smooth_images_gets_smooth_noise() -> None:
    graph = trained_on(smooth(64))
    rows = probe(graph)
    assert any(torch.equal(rows, noise(SHAPE, 2.0, seed)) for seed in range(4))
    assert mismatch(graph.module, rows) < 0.2 * mismatch(graph.module, noise(SHAPE, 0.0))


def test_a_network_that_was_trained_on_white_noise_gets_white_noise() -> None:
    graph = trained_on(normal(64, 3, 32, 32))
    assert torch.equal(probe(graph), noise(SHAPE, 0.0))


def test_a_network_without_norms_gets_some() -> None:
    graph = capture(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), torch.zeros(SHAPE))
    assert torch.equal(probe(graph), noise(SHAPE, 2.0))


def test_there_are_as_many_rows_as_asked_for() -> None:
    assert probe(trained_on(smooth(4)), 5).shape == (5, 3, 32, 32)


def test_the_digits_take_it_for_digits_more_than_white_noise() -> None:
    stored = ModelStore(Path(__file__).parents[2] / "model_store").open("digits")
    network = catalog.build("digits", {})
    weights.assign(network, weights.read(stored))
    graph = capture(network, torch.zeros(2, 1, 8, 8))
    assert mismatch(graph.module, probe(graph)) < 0.6 * mismatch(graph.module, noise([2, 1, 8, 8], 0.0))
