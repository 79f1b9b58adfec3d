"""Networks of torchvision and timm, brought from a checkpoint with one command, answer over HTTP as they did.

Each is built by its own library, saved as training saves it, imported, and served; what the service answers
is compared with what the library's own network answers in float64.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from service import cli
from service.network.random_stats import randomise
from tests.e2e.server import NPY, Server

from .libraries import environment, torchvision_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

FLOOR = 1e-5  # of float32, as in the parity of a load
SMALL = [3, 64, 64]
# One of each family; what is imported with them, where 64 pixels are not enough or the library warns.
NETWORKS: dict[str, dict[str, Any]] = {
    "torchvision:densenet121": {},
    "torchvision:efficientnet_b0": {},
    "torchvision:googlenet": {"options": {"init_weights": False}},
    "torchvision:mnasnet0_5": {},
    "torchvision:mobilenet_v2": {},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:regnet_y_400mf": {},
    "torchvision:resnet18": {},
    "torchvision:shufflenet_v2_x0_5": {},
    "timm:dla46_c": {},
    "timm:fastvit_t8": {},
    "timm:ghostnet_050": {},
    "timm:lcnet_035": {},
    "timm:levit_128s": {"row": [3, 224, 224]},
    "timm:mixnet_s": {},
    "timm:mobileone_s0": {},
    "timm:repvgg_a0": {},
    "timm:resnetv2_50": {},
    "timm:rexnet_100": {},
    "timm:skresnet18": {},
}
# Served together, so that each group can be a test of its own, beside the others.
GROUPS = [list(NETWORKS)[start::4] for start in range(4)]
# How training leaves weights behind, taken in turns.
SAVED: list[Callable[[dict[str, Tensor]], object]] = [
    lambda weights: weights,
    lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    lambda weights: {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}, "epoch": 3},
    lambda weights: {"model": weights, "optimizer": {"state": {}, "param_groups": []}},
]


def row_of(name: str) -> list[int]:
    row: list[int] = NETWORKS[name].get("row", SMALL)
    return row


def original(name: str) -> nn.Module:
    """The network as its own library builds it, with random weights and statistics."""
    library, _, architecture = name.partition(":")
    options = NETWORKS[name].get("options", {})
    models = torchvision_models()
    torch.manual_seed(0)
    build = models.get_model if library == "torchvision" else import_module("timm").create_model
    network: nn.Module = build(architecture, **options)
    randomise(network, 0)
    return network.eval()


def imported(name: str, document: object, folder: Path) -> int:
    """Run the one command that stands between a checkpoint and serving; the answer is its exit status."""
    torch.save(document, folder / "run.pth")
    options = [f"--options={k}={str(v).lower()}" for k, v in NETWORKS[name].get("options", {}).items()]
    shape = ",".join(map(str, row_of(name)))
    return cli.main(
        [
            *("import", name, "--weights", str(folder / "run.pth"), "--name", name.replace(":", "-")),
            *("--model-store", str(folder / "store"), "--input", shape, *options),
            *("--threads", "1", "--device", "cpu"),
        ]
    )


def error(name: str, service: Server) -> tuple[float, float]:
    """How far the service's answers are from the original's in float64, and how far they may be."""
    rows = torch.randn(3, *row_of(name), generator=torch.Generator().manual_seed(1))
    body = io.BytesIO()
    np.save(body, rows.numpy())
    answer = service.http.post(
        f"/v1/models/{name.replace(':', '-')}/predict",
        content=body.getvalue(),
        headers={"Content-Type": NPY, "Accept": NPY},
        params={"output": "logits"},
    )
    assert answer.status_code == 200, answer.text
    served = torch.from_numpy(np.load(io.BytesIO(answer.content), allow_pickle=False)).double()
    network = original(name)
    with torch.inference_mode():
        own = network(rows).double()
        expected = network.double()(rows.double())
    assert served.shape == expected.shape
    largest = float(expected.abs().max())
    own_error = float((own - expected).abs().max()) / largest
    return float((served - expected).abs().max()) / largest, max(FLOOR, 4 * own_error)


@pytest.mark.e2e
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_imported_networks_answer_over_http_as_their_librarys_own(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        document = SAVED[names.index(name) % len(SAVED)](dict(original(name).state_dict()))
        assert imported(name, document, tmp_path) == 0, name
    for variable, value in environment().items():
        monkeypatch.setenv(variable, value)
    with Server.start(model_store=tmp_path / "store", device="cpu") as service:
        found = {name: error(name, service) for name in names}
        models = [f"/v1/models/{name.replace(':', '-')}" for name in names]
        references = {service.get(model).json()["reference"] for model in models}
    assert {name: errors for name, errors in found.items() if not errors[0] <= errors[1]} == {}
    assert references == {"stored"}


def test_there_are_twenty_networks_of_different_families() -> None:
    assert len(NETWORKS) >= 20
    assert sorted(name for group in GROUPS for name in group) == sorted(NETWORKS)
