"""From a checkpoint to answers over HTTP: one command, then the service, and the original's answers."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.network.random_stats import randomise
from tests.architectures.libraries import environment, torchvision_models

from .server import NPY, Process, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

pytestmark = pytest.mark.e2e

FLOOR = 1e-5  # of float32, as in the parity of a load
CLASSES = [f"shoe {number}" for number in range(7)]


def trained(build: Any, **options: Any) -> nn.Module:
    """A network of one of the libraries with random weights and statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = build(**options)
    randomise(network, 0)
    return network.eval()


class Trained:
    """Three networks as their libraries build them; one was fine-tuned and trained with DataParallel."""

    def __init__(self) -> None:
        models, timm = torchvision_models(), import_module("timm")
        self.networks = {
            "built-in": trained(models.resnet18, num_classes=len(CLASSES)),
            "torchvision": trained(models.mobilenet_v3_small),
            "timm": trained(timm.create_model, model_name="test_resnet"),
        }
        self.transforms = {
            "built-in": models.ResNet18_Weights.DEFAULT.transforms(),
            "torchvision": models.MobileNet_V3_Small_Weights.DEFAULT.transforms(),
            "timm": import_module("timm.data").create_transform(
                **import_module("timm.data").resolve_data_config(model=self.networks["timm"])
            ),
        }


@pytest.fixture(scope="module")
def original() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def service(original: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All three, each imported with one command."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "shoes.txt").write_text("".join(f"{label}\n" for label in CLASSES))
    parallel = torch.nn.DataParallel(original.networks["built-in"], device_ids=[])
    torch.save({"model": parallel.state_dict(), "epoch": 90}, folder / "built-in.pth")
    for name in ("torchvision", "timm"):
        torch.save(original.networks[name].state_dict(), folder / f"{name}.pth")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment().items():
            patch.setenv(variable, value)
        imported(folder, "built-in", "resnet18", "--labels", str(folder / "shoes.txt"))
        imported(folder, "torchvision", "torchvision:mobilenet_v3_small")
        imported(folder, "timm", "timm:test_resnet")
        with Server.start(model_store=folder / "store", device="cpu") as started:
            yield started


def imported(folder: Path, name: str, architecture: str, *more: str) -> None:
    checkpoint = ["--weights", str(folder / f"{name}.pth"), "--name", name]
    with Process(
        "import", architecture, *checkpoint, *more, model_store=folder / "store", threads=1
    ) as command:
        assert command.wait() == 0, command.log
        assert f"wrote {name}/1; foldserve serve serves it" in command.log


def logits(service: Server, name: str, content: bytes, media_type: str) -> Tensor:
    answer = service.http.post(
        f"/v1/models/{name}/predict",
        content=content,
        headers={"Content-Type": media_type, "Accept": NPY},
        params={"output": "logits"},
    )
    assert answer.status_code == 200, answer.text
    return torch.from_numpy(np.load(io.BytesIO(answer.content), allow_pickle=False))


def image() -> Image.Image:
    """Noise with large and small shapes in it."""
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", ["built-in", "torchvision", "timm"])
def test_rows_are_answered_as_by_the_original_network(name: str, service: Server, original: Trained) -> None:
    network = original.networks[name]
    shape = service.get(f"/v1/models/{name}").json()["manifest"]["input"]["shape"]
    rows = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    body = io.BytesIO()
    np.save(body, rows.numpy())
    with torch.inference_mode():
        own = network(rows)
        expected = network.double()(rows.double())
        network.float()
    served = logits(service, name, body.getvalue(), NPY)
    largest = float(expected.abs().max())
    own_error = float((own - expected).abs().max()) / largest
    assert float((served - expected).abs().max()) / largest <= max(FLOOR, 4 * own_error)


@pytest.mark.parametrize("name", ["built-in", "torchvision", "timm"])
def test_images_are_answered_as_behind_the_librarys_own_transforms(
    name: str, service: Server, original: Trained
) -> None:
    stream = io.BytesIO()
    image().save(stream, "png")
    with torch.inference_mode():
        expected = original.networks[name](original.transforms[name](image()).unsqueeze(0))
    served = logits(service, name, stream.getvalue(), "image/png")
    assert float((served - expected).abs().max() / expected.abs().max()) < 1e-4


def test_labels_are_those_that_were_said_or_the_librarys(service: Server) -> None:
    stream = io.BytesIO()
    image().save(stream, "png")
    labels = {}
    for name in ("built-in", "torchvision", "timm"):
        answer = service.http.post(
            f"/v1/models/{name}/predict", content=stream.getvalue(), headers={"Content-Type": "image/png"}
        )
        labels[name] = answer.json()["predictions"][0]["label"]
    assert labels["built-in"] in CLASSES
    assert labels["torchvision"] in torchvision_models().MobileNet_V3_Small_Weights.DEFAULT.meta["categories"]
    assert labels["timm"] in import_module("timm.data").ImageNetInfo().label_descriptions()


def test_a_service_starts_with_the_answers_that_the_import_stored(service: Server) -> None:
    stored = [
        service.get(f"/v1/models/{name}").json()["reference"] for name in ("built-in", "torchvision", "timm")
    ]
    assert stored == ["stored"] * 3
