"""Presets make of an image what the library's own transforms make of it, and name its labels."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.importing import preset as presets
from service.importing.architecture import input_from
from service.importing.checkpoint import Checkpoint
from service.inputs.decoding import decode_image
from service.network import catalog
from tests.architectures.libraries import torchvision_models

if TYPE_CHECKING:
    from service.importing.preset import Preset
    from service.store.manifest import Input

UNKNOWN = Checkpoint({}, (), "run.pth", "0" * 64)


@pytest.fixture(scope="module", autouse=True)
def models() -> Any:
    return torchvision_models()


def preset_of(architecture: str, checkpoint: Checkpoint = UNKNOWN) -> Preset:
    options = {"init_weights": False} if "googlenet" in architecture else {}
    return presets.of(architecture, catalog.build(architecture, options), checkpoint)


def photograph(width: int = 500, height: int = 375) -> Image.Image:
    """Noise with large and small shapes in it."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def row(image: Image.Image, spec: Input) -> torch.Tensor:
    """What foldserve's decoder and the manifest's normalisation make of the image, `[C, H, W]`."""
    stream = io.BytesIO()
    image.save(stream, "png")
    pixels = np.empty(spec.shape, np.uint8)
    decode_image(stream.getvalue(), spec, 1 << 30, pixels)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    return (torch.from_numpy(pixels) / 255 - mean) / std


# torchvision


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "efficientnet_v2_s", "regnet_y_400mf"])
def test_torchvision_images_become_what_its_own_transforms_make_of_them(name: str, models: Any) -> None:
    spec = input_from(preset_of(f"torchvision:{name}"), {})
    expected = models.get_model_weights(name).DEFAULT.transforms()(photograph())
    assert torch.allclose(row(photograph(), spec), expected, atol=1e-5)


def test_a_checkpoint_of_torchvisions_own_is_recognised_by_its_digest(models: Any) -> None:
    older, newer = models.ResNet50_Weights.IMAGENET1K_V1, models.ResNet50_Weights.IMAGENET1K_V2
    digits = older.url.rpartition("-")[2].removesuffix(".pth")
    recognised = preset_of("torchvision:resnet50", Checkpoint({}, (), "x.pth", digits + "0" * 56))
    unknown = preset_of("torchvision:resnet50")
    assert (recognised.input["resize"], unknown.input["resize"]) == (
        older.transforms().resize_size[0],
        newer.transforms().resize_size[0],
    )
    assert recognised.origin == "torchvision's ResNet50_Weights.IMAGENET1K_V1, which the checkpoint is"
    assert unknown.origin.endswith("IMAGENET1K_V2, its default; the checkpoint is none of its own")


def test_torchvisions_own_googlenet_takes_the_input_that_it_was_trained_with(models: Any) -> None:
    digits = models.GoogLeNet_Weights.DEFAULT.url.rpartition("-")[2].removesuffix(".pth")
    own = preset_of("torchvision:googlenet", Checkpoint({}, (), "x.pth", digits + "0" * 56))
    assert own.options == {"transform_input": True}
    assert own.remarks == ("transform_input is on, as torchvision has it for its own weights.",)
    unknown = preset_of("torchvision:googlenet")
    assert unknown.options == {}
    assert "--options transform_input=true" in unknown.remarks[0]


def test_every_network_of_torchvision_has_a_preset(models: Any) -> None:
    network = torch.nn.Identity()  # torchvision's configuration stands with the name
    found = {name: presets.of(f"torchvision:{name}", network, UNKNOWN) for name in models.list_models()}
    classifying = models.list_models(module=models)
    assert len(classifying) >= 80
    assert all(found[name].origin.startswith("torchvision's ") for name in classifying)
    assert found["fcn_resnet50"].origin == found["r3d_18"].origin == "what is usual for ImageNet"


def test_torchvisions_labels_are_its_categories(models: Any) -> None:
    labels = preset_of("torchvision:resnet18").labels
    assert labels is not None
    assert labels == tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])


# timm


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50.a1_in1k", "tf_efficientnet_b0.ns_jft_in1k", "repvgg_a0", "levit_128s"]
)
def test_timm_images_become_what_its_own_transforms_make_of_them(name: str) -> None:
    timm, timm_data = import_module("timm"), import_module("timm.data")
    architecture = f"timm:{name}"
    spec = input_from(preset_of(architecture), {})
    transform = timm_data.create_transform(**timm_data.resolve_data_config(model=timm.create_model(name)))
    assert torch.allclose(row(photograph(), spec), transform(photograph()), atol=1e-5)


def test_timms_labels_are_those_of_its_imagenet() -> None:
    labels = preset_of("timm:resnet18").labels
    assert labels is not None
    assert (len(labels), labels[0]) == (1000, "tench, Tinca tinca")
    larger = preset_of("timm:mobilenetv3_large_100.miil_in21k").labels
    assert larger is not None
    assert len(larger) == 11221


def test_another_number_of_classes_has_no_labels_of_timms() -> None:
    network = catalog.build("timm:resnet18", {"num_classes": 7})
    assert presets.of("timm:resnet18", network, UNKNOWN).labels is None


@pytest.mark.parametrize(
    ("configured", "resize", "said"),
    [
        ({"crop_mode": "center", "crop_pct": 0.5}, 448, ""),
        ({"crop_mode": "squash", "crop_pct": 1.0}, None, ""),
        ({"crop_mode": "center", "crop_pct": 1.15}, None, "timm crops with 'center' and 1.15, which cannot"),
        (
            {"crop_mode": "squash", "crop_pct": 0.9},
            None,
            "timm crops with 'squash' and 0.9, which cannot be said",
        ),
        (
            {"crop_mode": "border", "crop_pct": 1.0},
            None,
            "timm crops with 'border' and 1, which cannot be said",
        ),
        ({"interpolation": "lanczos"}, 235, "The interpolation 'lanczos' is not there; bilinear is taken."),
    ],
)
def test_what_a_manifest_cannot_say_is_told(
    configured: dict[str, Any], resize: int | None, said: str
) -> None:
    network: Any = catalog.build("timm:resnet18", {})
    network.pretrained_cfg = {**network.pretrained_cfg, **configured}
    found = presets.of("timm:resnet18", network, UNKNOWN)
    assert input_from(found, {}).resize == resize
    assert said in "".join(found.remarks)
    assert bool(found.remarks) == bool(said)
