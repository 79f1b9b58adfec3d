"""A class of one's own and an exported file are imported, and serve with nothing of what made them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from service.engine.loading import load
from service.errors import FoldserveError, InvalidConfiguration, InvalidProgram, ModelRefused
from service.importing.architecture import Wishes, from_architecture
from service.importing.program import as_program, from_callable, from_exported
from service.importing.publishing import publish
from service.network.batch_norm import BatchNorm
from service.store.manifest import Input
from service.store.model_store import ModelStore
from tests.e2e.server import NPY, ROOT, Server, environment
from tests.importing.checkpoints import PIXELS, trained
from tests.importing.elsewhere import go_elsewhere
from tests.store.programs import node, nodes, saved, small, with_document

if TYPE_CHECKING:
    from pathlib import Path

INPUT = Input(shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
PACKAGE = """
import torch
from torch import nn

class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.linspace(-1, 1, 6))
        self.register_buffer("var", torch.linspace(0.5, 2, 6))
        self.gamma = nn.Parameter(torch.linspace(1, 2, 6))

    def forward(self, x):
        root = torch.sqrt(self.var[:, None, None] + 1e-3)
        return (x - self.mean[:, None, None]) / root * self.gamma[:, None, None]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), Norm(), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

def pretrained():
    torch.manual_seed(1)
    return Net()

ready = pretrained()

def broken():
    raise RuntimeError("the weights are on a disk of mine")

def no_network():
    return {"a": 1}

class Data(Net):
    def forward(self, x):
        return self.head(x.mean((2, 3)).repeat(1, 2)) if x.sum() > 0 else x

def depends_on_data():
    return Data()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own, `my_networks`, that can be imported."""
    folder = tmp_path / "packages" / "my_networks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return folder


def foldserve(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    variables = environment() | ({} if path is None else {"PYTHONPATH": str(path)})
    return subprocess.run(
        [sys.executable, "-m", "service", *map(str, arguments)],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def asked(server: Server, model: str, rows: np.ndarray) -> np.ndarray:
    """The logits of network inputs over HTTP."""
    body = io.BytesIO()
    np.save(body, rows)
    answer = server.http.post(
        f"/v1/models/{model}/predict",
        content=body.getvalue(),
        headers={"Content-Type": NPY, "Accept": NPY},
        params={"output": "logits"},
    )
    assert answer.status_code == 200, answer.text
    logits: np.ndarray = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return logits


def test_a_callable_serves_when_its_package_is_gone_and_the_store_is_elsewhere(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = foldserve(
        *("import", "--callable", "my_networks:pretrained", "--name", "mine", "--input", "3,16,16"),
        *("--mean", "0,0,0", "--std", "1,1,1", "--model-store", tmp_path / "store"),
        path=package.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 norms folded" in done.stdout
    rows = np.random.default_rng(0).standard_normal((5, 3, 16, 16), dtype=np.float32)
    namespace: dict[str, Any] = {}
    exec(PACKAGE, namespace)
    with torch.inference_mode():
        expected = namespace["pretrained"]().double()(torch.from_numpy(rows).double()).numpy()

    elsewhere = tmp_path / "elsewhere"
    shutil.move(tmp_path / "store", elsewhere / "store")
    shutil.rmtree(package)
    go_elsewhere(elsewhere, monkeypatch)
    with Server.start(model_store=elsewhere / "store") as server:
        np.testing.assert_allclose(asked(server, "mine", rows), expected, rtol=1e-4, atol=1e-5)
        described = server.get("/v1/models/mine").json()
        (layer,) = server.get("/v1/models/mine/layers").json()["layers"]
    assert (described["architecture"], described["reference"]) == (None, "stored")
    assert (layer["name"], layer["momentum"], layer["num_batches_tracked"]) == ("norm", None, None)
    assert layer["eps"] == 1e-3
    assert layer["running_var"]["max"] == 2.0


def test_an_architecture_is_stored_as_a_program_whose_norms_say_the_same(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "run.pth")
    source = from_architecture(
        "digits", tmp_path / "run.pth", Wishes(input=PIXELS, labels=tuple("0123456789"))
    )
    norms = [layer for layer in source.network.modules() if isinstance(layer, BatchNorm)]
    norms[0].momentum, norms[1].momentum = 0.03, None
    store = ModelStore(tmp_path / "store")
    kept, exported = publish(source, store, "kept"), publish(as_program(source), store, "exported")
    assert [layer.name for layer in exported.facts.layers] == [layer.name for layer in kept.facts.layers]
    assert [layer.momentum for layer in exported.facts.layers][:3] == [0.03, None, 0.1]
    for ours, theirs in zip(exported.facts.layers, kept.facts.layers, strict=True):
        assert ours.model_dump(exclude={"momentum"}) == theirs.model_dump(exclude={"momentum"})
    manifest = exported.facts.manifest
    assert (manifest.architecture, manifest.input) == (None, kept.facts.manifest.input)
    assert exported.facts.labels == list("0123456789")
    assert manifest.model_dump()["provenance"]["import"]["architecture"] == "digits"
    rows = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = source.network.double()(rows.double())
    plan = load(store.open("exported"), torch.device("cpu")).plan
    torch.testing.assert_close(plan(rows).double(), expected, rtol=1e-4, atol=1e-5)


def test_an_exported_file_is_imported_and_serves(tmp_path: Path) -> None:
    network = small()
    (tmp_path / "mine.pt2").write_bytes(saved(network))
    store = ModelStore(tmp_path / "store")
    report = publish(from_exported(tmp_path / "mine.pt2", INPUT, tuple("abcde")), store, "mine")
    assert report.facts.fold["kept"] == 0
    assert report.facts.labels == list("abcde")
    assert load(store.open("mine"), torch.device("cpu")).card.facts.reference == "stored"
    (norm,) = report.facts.layers
    assert (norm.name, norm.momentum, norm.num_batches_tracked) == ("norm", 0.03, 7)
    assert str(tmp_path).encode() not in (store.folder / "mine" / "1" / "model.pt2").read_bytes()


def test_a_network_that_is_there_already_needs_no_call(package: Path, tmp_path: Path) -> None:
    assert package.is_dir()
    source = from_callable("my_networks:ready", Input(**{**INPUT.model_dump(), "shape": [3, 16, 16]}), None)
    report = publish(source, ModelStore(tmp_path / "store"), "mine")
    assert report.facts.output_shape == [4]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("spec", "kind", "reason"),
    [
        ("my_networks", InvalidConfiguration, "say package.module:factory"),
        (":pretrained", InvalidConfiguration, "say package.module:factory"),
        ("no_such_package:net", InvalidConfiguration, "ModuleNotFoundError"),
        ("my_networks:no_such_name", InvalidConfiguration, "AttributeError"),
        ("my_networks:broken", InvalidConfiguration, "RuntimeError: the weights are on a disk of mine"),
        ("my_networks:no_network", InvalidConfiguration, "makes a dict, not a torch.nn.Module"),
        ("my_networks:depends_on_data", ModelRefused, "cannot be captured with a dynamic batch"),
    ],
)
def test_what_is_no_network_to_export_is_refused_with_why(
    spec: str, kind: type[FoldserveError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        from_callable(spec, INPUT, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no archive of torch.export.save"),
        (b"not a program", "no archive of torch.export.save"),
        (saved(small(), (3, 9, 9)), r"takes rows of \[3, 9, 9\], the input's shape is \[3, 8, 8\]"),
    ],
)
def test_a_file_that_is_no_program_for_these_rows_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "mine.pt2").write_bytes(content)
    with pytest.raises(InvalidProgram, match=rf"mine\.pt2 is not imported: it {reason}|{reason}"):
        from_exported(tmp_path / "mine.pt2", INPUT, None)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"gone\.pt2 cannot be read"):
        from_exported(tmp_path / "gone.pt2", INPUT, None)


def asking_for_a_terabyte(document: Any) -> None:
    """The answer is multiplied with the largest of so many ones."""

    def call(target: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        given = [{"name": key, "arg": argument, "kind": 1} for key, argument in inputs.items()]
        outputs = [{"as_tensor": {"name": name}}]
        return {"target": f"torch.ops.aten.{target}", "inputs": given, "outputs": outputs, "metadata": {}}

    product = node(document, "aten.mul.Tensor")
    product["inputs"][1]["arg"] = {"as_tensor": {"name": "top"}}
    ones = call("ones.default", "ones", {"size": {"as_ints": [1 << 38]}})
    nodes(document)[:0] = [ones, call("amax.default", "top", {"self": {"as_tensor": {"name": "ones"}}})]


def test_a_program_that_asks_for_a_terabyte_is_refused_before_it_gets_any(tmp_path: Path) -> None:
    (tmp_path / "mine.pt2").write_bytes(with_document(saved(small()), asking_for_a_terabyte))
    store = ModelStore(tmp_path / "store")
    with pytest.raises(ModelRefused, match="makes 1,099,511,627,776 bytes for a single row"):
        publish(from_exported(tmp_path / "mine.pt2", INPUT, None), store, "mine")
    assert list(store.folder.rglob("*")) == []


def test_a_stored_program_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.pt2").write_bytes(saved(small()))
    store = ModelStore(tmp_path / "store")
    publish(from_exported(tmp_path / "mine.pt2", INPUT, None), store, "mine")
    file = store.folder / "mine" / "1" / "model.pt2"
    file.write_bytes(file.read_bytes() + b"\0")
    done = foldserve("layers", "mine", "--model-store", store.folder)
    assert done.returncode == 1
    assert "mine/1: model.pt2 has sha256" in done.stderr


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_of_another_kind_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.jit.script(small()).save(str(tmp_path / "scripted.pt"))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "graph.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    for name, advice in (
        ("scripted.pt", "TorchScript program"),
        ("weights.pth", "it is a checkpoint: import it with its ARCHITECTURE and --weights"),
        ("graph.onnx", "an ONNX graph"),
    ):
        with pytest.raises(InvalidProgram, match=advice):
            from_exported(tmp_path / name, INPUT, None)
