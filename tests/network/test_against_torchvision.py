"""Our architectures beside torchvision's, and the names of torchvision and timm in the catalog."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from service.errors import InvalidManifest
from service.network import catalog
from service.network.adopt import norms
from service.network.batch_norm import BatchNorm
from tests.architectures.libraries import torchvision_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

OURS = [name for name in catalog.names() if name != "digits"]
FAMILIES = [
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "vgg11_bn",
    "wide_resnet50_2",
]


@pytest.fixture(autouse=True, scope="module")
def _libraries() -> None:
    """The catalog imports them as a user has them; here they may need what `torchvision_models` does."""
    torchvision_models()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On maps this small more threads bring nothing, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def theirs(architecture: str, **options: Any) -> nn.Module:
    network: nn.Module = torchvision_models().get_model(architecture, weights=None, **options)
    return network.eval()


def settings(network: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What each convolution, norm and dropout was made with, by name."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found[name] = (module.stride, module.padding, module.dilation, module.groups)
        elif isinstance(module, (nn.BatchNorm2d, BatchNorm)):
            found[name] = (module.eps, module.momentum)
        elif isinstance(module, nn.Dropout):
            found[name] = (module.p,)
    return found


@torch.no_grad()
def randomize(network: nn.Module, x: Tensor) -> None:
    """Beside the random weights random vectors, with statistics near those of the batch `x`.

    With statistics far from it the gates of deep networks amplify rounding errors a million times.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1 and name.endswith("weight"):
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif parameter.dim() == 1:
            parameter.normal_(0, 0.2, generator=generator)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            norm.train()
    network(x)
    for name, buffer in network.eval().named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(torch.empty_like(buffer).uniform_(0.7, 1.4, generator=generator))
        elif name.endswith("running_mean"):
            buffer.add_(torch.empty_like(buffer).normal_(0, 0.1, generator=generator))


@pytest.mark.parametrize("architecture", OURS)
def test_state_dicts_agree_in_names_shapes_and_order(architecture: str) -> None:
    with torch.device("meta"):
        expected = theirs(architecture).state_dict()
        ours = catalog.build(architecture, {}).state_dict()
    assert [(k, t.shape, t.dtype) for k, t in ours.items()] == [
        (k, t.shape, t.dtype) for k, t in expected.items()
    ]


@pytest.mark.parametrize("architecture", OURS)
def test_settings_agree_that_no_state_dict_holds(architecture: str) -> None:
    with torch.device("meta"):
        assert settings(catalog.build(architecture, {})) == settings(theirs(architecture))


@pytest.mark.parametrize("architecture", FAMILIES)
@torch.no_grad()
def test_answers_agree_in_float64(architecture: str) -> None:
    torch.manual_seed(0)
    reference = theirs(architecture, num_classes=10).double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    randomize(reference, x)
    with torch.device("meta"):
        ours = catalog.build(architecture, {"num_classes": 10})
    ours.load_state_dict(reference.state_dict(), assign=True)
    expected = reference(x)
    largest = float(expected.abs().max())
    assert expected.std(0).min() > 1e-4 * largest  # the answer depends on the input
    assert_close(ours(x), expected, rtol=0, atol=1e-6 * largest)


# --- names with a prefix ---------------------------------------------------------------------------


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_offline")
def test_a_torchvision_name_builds_with_our_norms_and_the_options() -> None:
    network = catalog.build("torchvision:shufflenet_v2_x0_5", {"num_classes": 7})
    assert len(norms(network)) == 56
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not network.training
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.usefixtures("_offline")
def test_a_segmentation_network_fetches_no_backbone() -> None:
    with torch.device("meta"):
        assert norms(catalog.build("torchvision:lraspp_mobilenet_v3_large", {}))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("option", ["weights", "weights_backbone"])
def test_options_cannot_ask_torchvision_for_weights(option: str) -> None:
    for architecture in ("torchvision:resnet18", "torchvision:lraspp_mobilenet_v3_large"):
        with pytest.raises(InvalidManifest, match=option):
            catalog.build(architecture, {option: "DEFAULT"})


@pytest.mark.usefixtures("_offline")
def test_a_timm_name_builds_with_our_norms_and_the_options() -> None:
    network = catalog.build("timm:resnet10t.c3_in1k", {"num_classes": 7})
    assert len(norms(network)) == 14
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not network.training
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("options", [{"pretrained": True}, {"checkpoint_path": "weights.pth"}])
def test_options_cannot_ask_timm_for_weights(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest, match=next(iter(options))):
        catalog.build("timm:resnet10t", options)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", ["resnet19", "hf-hub:timm/resnet10t.c3_in1k", "local-dir:/tmp/model", ""])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_name_that_the_library_does_not_define_is_refused(library: str, name: str) -> None:
    with pytest.raises(InvalidManifest, match=f"{library} has no architecture '{name}'"):
        catalog.build(f"{library}:{name}", {})
