from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from service.errors import InvalidManifest
from service.network import catalog
from service.network.adopt import norms
from service.network.densenet import ARCHITECTURES as DENSENETS

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLISHED = {  # parameters, as torchvision's documentation gives them, and norms
    "densenet121": (7_978_856, 121),
    "densenet161": (28_681_000, 161),
    "densenet169": (14_149_480, 169),
    "densenet201": (20_013_928, 201),
    "efficientnet_b0": (5_288_548, 49),
    "efficientnet_b1": (7_794_184, 69),
    "efficientnet_b2": (9_109_994, 69),
    "efficientnet_b3": (12_233_232, 78),
    "efficientnet_b4": (19_341_616, 96),
    "efficientnet_b5": (30_389_784, 116),
    "efficientnet_b6": (43_040_704, 134),
    "efficientnet_b7": (66_347_960, 163),
    "mobilenet_v2": (3_504_872, 52),
    "mobilenet_v3_large": (5_483_032, 46),
    "mobilenet_v3_small": (2_542_856, 34),
    "resnet18": (11_689_512, 20),
    "resnet34": (21_797_672, 36),
    "resnet50": (25_557_032, 53),
    "resnet101": (44_549_160, 104),
    "resnet152": (60_192_808, 155),
    "resnext50_32x4d": (25_028_904, 53),
    "resnext101_32x8d": (88_791_336, 104),
    "resnext101_64x4d": (83_455_272, 104),
    "vgg11_bn": (132_868_840, 8),
    "vgg13_bn": (133_053_736, 10),
    "vgg16_bn": (138_365_992, 13),
    "vgg19_bn": (143_678_248, 16),
    "wide_resnet50_2": (68_883_240, 53),
    "wide_resnet101_2": (126_886_696, 104),
}
SMALL = ["densenet121", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "resnet18"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On maps this small more threads bring nothing, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def built(architecture: str, **options: Any) -> nn.Module:
    """Without memory for its weights."""
    with torch.device("meta"):
        return catalog.build(architecture, options)


def test_every_architecture_but_our_own_is_measured_here() -> None:
    assert set(catalog.names()) == {*PUBLISHED, "digits"}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_an_architecture_has_the_published_size_and_answers_a_thousand_logits(architecture: str) -> None:
    network = built(architecture)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (parameters, len(norms(network))) == PUBLISHED[architecture]
    assert not network.training
    assert network(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_an_architecture_takes_the_number_of_classes_and_nothing_else(architecture: str) -> None:
    network = built(architecture, num_classes=7)
    assert network(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 7)
    with pytest.raises(InvalidManifest, match=rf"'{architecture}': .* argument 'groups'"):
        built(architecture, groups=2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("architecture", SMALL)
@torch.no_grad()
def test_untrained_networks_answer_finite_values_that_depend_on_the_input(
    architecture: str, training: bool
) -> None:
    torch.manual_seed(0)
    network = catalog.build(architecture, {"num_classes": 10}).train(training)
    logits = network(torch.randn(4, 3, 64, 64))
    assert logits.isfinite().all()
    assert logits.std(0).max() > 1e-5  # it is not the bias of the last layer alone


def test_convolutions_start_from_hes_variance() -> None:
    torch.manual_seed(0)
    weight = catalog.build("resnet18", {}).get_parameter("layer4.0.conv1.weight")  # [512, 256, 3, 3]
    assert weight.var().item() == pytest.approx(2 / (256 * 9), rel=0.01)


@pytest.mark.parametrize("architecture", ["densenet121", "resnet18"])
def test_one_step_of_training_reaches_every_parameter(architecture: str) -> None:
    network = catalog.build(architecture, {"num_classes": 10}).train()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_published_densenet_files_load_although_their_names_have_another_form() -> None:
    expected = catalog.build("densenet121", {"num_classes": 10})
    published = {
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): tensor
        for name, tensor in expected.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    network = DENSENETS["densenet121"](num_classes=10)
    network.load_state_dict(published)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_an_unknown_name_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(
        InvalidManifest, match=r"'resnet19' is unknown; .*resnet18.*torchvision:NAME, timm:NAME"
    ):
        catalog.build("resnet19", {})


def test_options_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(InvalidManifest, match="resnet18"):
        built("resnet18", num_classes="ten")
    with pytest.raises(InvalidManifest, match="resnet18"):
        built("resnet18", num_classes=-1)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    said = rf"pip install 'foldserve\[{library}\]' --constraint constraints\.txt"
    with pytest.raises(InvalidManifest, match=said):
        catalog.build(f"{library}:resnet18", {})


@pytest.mark.parametrize("architecture", ["tensorflow:resnet50", ":resnet50", "os:system"])
def test_another_library_is_refused(architecture: str) -> None:
    with pytest.raises(InvalidManifest, match="only of torchvision and timm"):
        catalog.build(architecture, {})
