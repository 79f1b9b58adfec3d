"""Networks of torchvision and timm, brought from a checkpoint with one command, answer as they did.

Each is built by its own library, saved as training saves it, and imported. The answers that lie in the store
then, against which the import has proven what will be served, are compared with those of the library's own
network in float64; of a few, so are the answers over HTTP.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from service import cli
from service.network.random_stats import randomise
from tests.e2e.server import NPY, Server
from tests.importing.elsewhere import go_elsewhere

from .libraries import environment, torchvision_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

FLOOR = 1e-5  # of float32, as in the parity of a load
EXACT = 1e-9  # of float64: our norms multiply and add in another order
SMALL = [3, 64, 64]
# One of each family; what is imported with them, where 64 pixels are not enough or the library warns.
NETWORKS: dict[str, dict[str, Any]] = {
    "torchvision:efficientnet_b0": {},
    "torchvision:googlenet": {"options": {"init_weights": False}},
    "torchvision:mnasnet0_5": {},
    "torchvision:mobilenet_v2": {},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:regnet_y_400mf": {},
    "torchvision:resnet18": {},
    "torchvision:shufflenet_v2_x0_5": {},
    "timm:darknet17": {},
    "timm:dla46_c": {},
    "timm:ese_vovnet19b_dw": {},
    "timm:fastvit_t8": {},
    "timm:ghostnet_050": {},
    "timm:lcnet_035": {},
    "timm:levit_128s": {"row": [3, 224, 224]},
    "timm:mixnet_s": {},
    "timm:repvgg_a0": {},
    "timm:resnetv2_50": {},
    "timm:rexnet_100": {},
    "timm:skresnet18": {},
}
# Of either library, one saved in each way; with an option, with branches that become one, with attention.
SERVED = ["torchvision:googlenet", "torchvision:shufflenet_v2_x0_5", "timm:levit_128s", "timm:repvgg_a0"]
EXPORTED = ["torchvision:regnet_y_400mf", "timm:rexnet_100"]
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


class Store:
    """Networks brought into a store, each when it is first asked for."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder / "store"
        self._checkpoint = folder / "run.pth"
        self._flags = flags

    def version_of(self, name: str) -> Path:
        """The folder of the one version of the network."""
        version = self.folder / served_as(name) / "1"
        if not version.exists():
            saved = SAVED[list(NETWORKS).index(name) % len(SAVED)]
            torch.save(saved(dict(original(name).state_dict())), self._checkpoint)
            assert self._imported(name) == 0, name
        return version

    def _imported(self, name: str) -> int:
        """Run the one command that stands between a checkpoint and serving; the answer is its exit status."""
        options = [f"--options={k}={str(v).lower()}" for k, v in NETWORKS[name].get("options", {}).items()]
        shape = ",".join(map(str, row_of(name)))
        return cli.main(
            [
                *("import", name, "--weights", str(self._checkpoint), "--name", served_as(name)),
                *("--model-store", str(self.folder), "--input", shape, *options),
                *("--threads", "1", "--device", "cpu", *self._flags),
            ]
        )


def served_as(name: str) -> str:
    return name.replace(":", "-")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("imported"))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_imported_is_the_librarys_own_network(name: str, store: Store) -> None:
    """The import exits with 0 where what will be served has answered as these reference answers do."""
    stored = load_file(store.version_of(name) / "reference.safetensors")
    with torch.inference_mode():
        expected = original(name).double()(stored["rows"].double())
    assert len(expected) >= 2
    assert relative(stored["answers"], expected) <= EXACT


@pytest.mark.e2e
def test_imported_networks_answer_over_http_as_their_librarys_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SERVED:
        store.version_of(name)
    for variable, value in environment().items():
        monkeypatch.setenv(variable, value)
    models = ",".join(map(served_as, SERVED))
    with Server.start(model_store=store.folder, models=models, device="cpu") as service:
        found = {name: error(name, service) for name in SERVED}
        references = {service.get(f"/v1/models/{served_as(name)}").json()["reference"] for name in SERVED}
    assert {name: errors for name, errors in found.items() if not errors[0] <= errors[1]} == {}
    assert references == {"stored"}


@pytest.mark.e2e
def test_imported_with_export_they_are_served_where_their_library_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, "--export")
    for name in EXPORTED:
        store.version_of(name)
    go_elsewhere(tmp_path, monkeypatch)
    with Server.start(model_store=store.folder, device="cpu") as service:
        for name in EXPORTED:
            found, most = error(name, service)
            assert found <= most, name


def error(name: str, service: Server) -> tuple[float, float]:
    """How far the service's answers are from the original's in float64, and how far they may be."""
    rows = torch.randn(3, *row_of(name), generator=torch.Generator().manual_seed(1))
    body = io.BytesIO()
    np.save(body, rows.numpy())
    answer = service.http.post(
        f"/v1/models/{served_as(name)}/predict",
        content=body.getvalue(),
        headers={"Content-Type": NPY, "Accept": NPY},
        params={"output": "logits"},
    )
    assert answer.status_code == 200, answer.text
    served = torch.from_numpy(np.load(io.BytesIO(answer.content), allow_pickle=False))
    network = original(name)
    with torch.inference_mode():
        own = network(rows)
        expected = network.double()(rows.double())
    return relative(served, expected), max(FLOOR, 4 * relative(own, expected))


def relative(answers: Tensor, expected: Tensor) -> float:
    """The largest error, over the largest value."""
    assert answers.shape == expected.shape
    return float((answers - expected).abs().max() / expected.abs().max())


def test_there_are_twenty_networks_of_different_families() -> None:
    assert len(NETWORKS) >= 20
    assert set(SERVED) <= set(NETWORKS)
    assert {list(NETWORKS).index(name) % len(SAVED) for name in SERVED} == set(range(len(SAVED)))
