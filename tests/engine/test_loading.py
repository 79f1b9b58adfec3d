"""Loading: a version on disk becomes a proven plan and a card, or is refused for what is wrong with it."""

from __future__ import annotations

import gc
import logging
import math
import re
import shutil
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from service.engine.loading import Loaded, load
from service.engine.unfolded import write_reference
from service.errors import InvalidConfiguration, InvalidManifest, InvalidWeights, ModelRefused
from service.network import catalog
from service.network.adopt import norms
from service.plan.preprocessing import PixelPass
from service.store import manifest as manifests
from service.store import reference, weights
from service.store.manifest import Input, Manifest, Output, Serving, Weights
from service.store.model_store import ModelStore, StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CPU = torch.device("cpu")
NORMS = ["bn1", "bn2", "bn3", "bn4", "bn5"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads are slower on tensors this small, much slower where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors_of(architecture: str = "digits", **options: Any) -> dict[str, Tensor]:
    """The architecture's tensors, random statistics and affine among them."""
    generator = torch.Generator().manual_seed(0)
    state = catalog.build(architecture, options).state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(17)
        elif name.endswith("running_var"):
            tensor.uniform_(0.2, 2, generator=generator)
        else:
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 1
            tensor.normal_(generator=generator).div_(math.sqrt(fan_in))
    return state


def stored(folder: Path, tensors: dict[str, Tensor], labels: int | None = 10, **keys: Any) -> StoredModel:
    """A version in a store below `folder`, read back."""

    def fill(version: Path) -> None:
        if labels is not None:
            (version / "labels.txt").write_text("".join(f"label {n}\n" for n in range(labels)))
        digest = weights.write(version / "weights.safetensors", tensors)
        described: dict[str, Any] = {
            "architecture": "digits",
            "input": Input(shape=[1, 8, 8], colour="grayscale", mean=[0.3], std=[0.4]),
            "outputs": [Output(labels=None if labels is None else "labels.txt")],
            "weights": Weights(sha256=digest),
            "serving": Serving(max_batch=8),
            **keys,
        }
        manifests.write(version / manifests.FILE_NAME, Manifest(**described))

    store = ModelStore(folder)
    store.publish("digits", 1, fill)
    return store.open("digits")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return stored(tmp_path_factory.mktemp("store"), tensors_of())


@pytest.fixture(scope="module")
def loaded(version: StoredModel) -> Loaded:
    return load(version, CPU)


def test_the_facts_say_what_was_loaded(loaded: Loaded, version: StoredModel) -> None:
    facts = loaded.card.facts
    assert (facts.model, facts.version, facts.manifest) == ("digits", 1, version.manifest)
    assert facts.labels == [f"label {n}" for n in range(10)]
    assert (facts.output_shape, facts.precision, facts.max_batch) == ([10], "float32", 8)
    assert facts.device == "cpu (1 thread)"
    assert facts.torch_version == torch.__version__
    assert list(facts.seconds) == [
        "read",
        "build",
        "capture",
        "reference",
        "fold",
        "layers",
        "lower",
        "parity",
        "warm-up",
    ]
    assert all(seconds > 0 for seconds in facts.seconds.values())


def test_the_report_has_one_outcome_per_norm_and_its_proof(loaded: Loaded) -> None:
    report = loaded.card.facts.fold
    assert (report["norms"], report["folded"], report["kept"]) == (5, 5, 0)
    assert report["parity"]["rows"] == 2
    assert report["parity"]["max_relative_error"] <= report["parity"]["tolerance"]
    assert [layer["name"] for layer in report["layers"]] == NORMS


def test_the_layers_are_in_the_order_of_the_network_with_their_fold(loaded: Loaded) -> None:
    layers = loaded.card.facts.layers
    assert [layer.name for layer in layers] == NORMS
    assert [layer.partner for layer in layers] == ["conv1", "conv2", "conv3", "conv4", "fc1"]
    assert {layer.outcome for layer in layers} == {"into_producer"}
    assert [layer.num_features for layer in layers] == [32, 32, 64, 64, 64]
    assert {layer.num_batches_tracked for layer in layers} == {17}


def test_the_vectors_are_those_of_the_weights_file_bit_for_bit(loaded: Loaded, version: StoredModel) -> None:
    file = load_file(version.weights_path)
    for name in NORMS:
        for vector in ("running_mean", "running_var", "weight", "bias"):
            held, expected = loaded.card.vectors[name][vector], file[f"{name}.{vector}"]
            assert held.dtype == expected.dtype
            assert held.tobytes() == expected.tobytes()


def test_the_summaries_are_those_of_the_file(loaded: Loaded, version: StoredModel) -> None:
    file = load_file(version.weights_path)
    layer = loaded.card.layer("bn3")
    scale = file["bn3.weight"].astype(np.float64) / np.sqrt(file["bn3.running_var"].astype(np.float64) + 1e-5)
    assert layer.running_mean is not None
    assert layer.scale is not None
    assert layer.running_mean.max == file["bn3.running_mean"].max()
    assert layer.scale.min == pytest.approx(scale.min(), rel=1e-12)


def test_the_plan_answers_as_the_unfolded_network_in_float64(loaded: Loaded) -> None:
    network = catalog.build("digits", {})
    network.load_state_dict(tensors_of())
    rows = torch.randint(0, 256, (11, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = network.double()((rows.double() / 255 - 0.3) / 0.4)
    error = (loaded.plan(rows) - reference).abs().max() / reference.abs().max()
    assert float(error) < 1e-5


def test_tf32_is_refused_on_a_cpu_before_anything_is_read(version: StoredModel, tmp_path: Path) -> None:
    elsewhere = replace(version, folder=tmp_path)
    with pytest.raises(InvalidConfiguration, match="precision tf32 is for CUDA devices; this device is cpu"):
        load(elsewhere, CPU, precision="tf32")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_and_batch_may_differ_from_the_manifest(version: StoredModel, precision: Any) -> None:
    facts = load(version, CPU, precision=precision, max_batch=3).card.facts
    assert (facts.precision, facts.max_batch) == (precision, 3)
    assert facts.manifest.serving.precision == "float32"


def test_options_of_the_architecture_are_its_arguments(tmp_path: Path) -> None:
    options = {"num_classes": 3}
    model = stored(tmp_path, tensors_of(num_classes=3), labels=3, options=options)
    assert load(model, CPU).card.facts.output_shape == [3]


def test_a_version_without_labels_has_none(tmp_path: Path) -> None:
    assert load(stored(tmp_path, tensors_of(), labels=None), CPU).card.facts.labels is None


@pytest.mark.parametrize("labels", [9, 11])
def test_as_many_labels_as_answers_are_needed(tmp_path: Path, labels: int) -> None:
    with pytest.raises(InvalidManifest, match=rf"digits/1: {labels} labels for an answer of shape \[10\]"):
        load(stored(tmp_path, tensors_of(), labels=labels), CPU)


def test_weights_that_differ_from_their_digest_are_refused(tmp_path: Path) -> None:
    model = stored(tmp_path, tensors_of())
    content = bytearray(model.weights_path.read_bytes())
    content[-1] ^= 1
    model.weights_path.write_bytes(content)
    with pytest.raises(InvalidWeights, match=r"has sha256 .* but the manifest says"):
        load(model, CPU)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("bn2.running_var"), r"missing: bn2\.running_var"),
        (lambda t: t.update({"bn6.weight": torch.ones(2)}), r"unexpected: bn6\.weight"),
        (
            lambda t: t.update({"bn1.bias": torch.ones(31)}),
            r"wrong shape: bn1.bias is \[31\] instead of \[32\]",
        ),
        (
            lambda t: t.update({"bn1.bias": torch.ones(1)}),
            r"wrong shape: bn1.bias is \[1\] instead of \[32\]",
        ),
    ],
    ids=["missing", "unexpected", "wrong shape", "broadcastable shape"],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[Any], Any], complaint: str
) -> None:
    tensors = tensors_of()
    change(tensors)
    with pytest.raises(InvalidWeights, match=complaint):
        load(stored(tmp_path, tensors), CPU)


def test_a_checkpoint_without_counts_loads(tmp_path: Path) -> None:
    tensors = {name: t for name, t in tensors_of().items() if not name.endswith("num_batches_tracked")}
    assert [
        layer.num_batches_tracked for layer in load(stored(tmp_path, tensors), CPU).card.facts.layers
    ] == [0] * 5


@pytest.mark.parametrize("tensor", ["bn1.running_mean", "fc2.bias", "conv1.weight"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tensor: str) -> None:
    tensors = tensors_of()
    tensors[tensor].view(-1)[0] = float("nan")
    with pytest.raises(ModelRefused):
        load(stored(tmp_path, tensors), CPU)


class Odd(nn.Module):
    """Norms registered in another order than they are called in, and one that is never called."""

    def __init__(self, tracked: bool = True) -> None:
        super().__init__()
        self.never = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm1d(4)
        self.first = nn.BatchNorm2d(4, track_running_stats=tracked)
        self.conv, self.shared = nn.Conv2d(1, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Any) -> Any:
        x = self.first(self.conv(x)).relu()
        return self.last(self.shared(self.shared(x)).mean((2, 3)))


class Twice(Odd):
    """One block registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.shared = nn.Sequential(block, block)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    for architecture in (Odd, Twice):
        monkeypatch.setitem(catalog._ARCHITECTURES, architecture.__name__, architecture)


@pytest.mark.usefixtures("odd")
def test_layers_are_in_the_order_of_calls_and_uncalled_norms_come_last(tmp_path: Path) -> None:
    model = stored(tmp_path, tensors_of("Odd"), labels=4, architecture="Odd")
    facts = load(model, CPU).card.facts
    assert [layer.name for layer in facts.layers] == ["first", "shared.1", "last", "never"]
    never = facts.layers[-1]
    assert (never.outcome, never.reason) == (None, "the network does not call it at inference")
    assert [layer["name"] for layer in facts.fold["layers"]] == ["first", "shared.1", "shared.1@1", "last"]


@pytest.mark.usefixtures("odd")
def test_a_block_under_two_names_is_a_called_layer(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in tensors_of("Twice").items()}
    facts = load(stored(tmp_path, tensors, labels=4, architecture="Twice"), CPU).card.facts
    uncalled = [layer.name for layer in facts.layers if layer.outcome is None]
    assert uncalled == ["never"]


PIXELS = torch.arange(8 * 1 * 8 * 8).reshape(8, 1, 8, 8).to(torch.uint8)


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(("architecture", "where"), [("Odd", "first layers"), ("digits", "one pass")])
def test_pixels_are_answered_as_the_inputs_that_they_stand_for(
    tmp_path: Path, architecture: str, where: str
) -> None:
    labels = 4 if architecture == "Odd" else 10
    model = stored(tmp_path, tensors_of(architecture), labels=labels, architecture=architecture)
    network = catalog.build(architecture, {}).eval()
    weights.assign(network, weights.read(model))
    with torch.no_grad():
        exact = network.double()((PIXELS.double() / 255 - 0.3) / 0.4)
    loaded = load(model, CPU)
    assert loaded.plan.preprocessing == loaded.card.facts.preprocessing == where
    assert float((loaded.plan(PIXELS) - exact).abs().max() / exact.abs().max()) < 1e-5


def test_untuned_a_plan_has_the_threads_that_torch_is_set_to(version: StoredModel) -> None:
    facts = load(version, CPU).card.facts
    assert (facts.threads, facts.tuned, "tune" in facts.seconds) == (1, False, False)


def test_tuned_threads_are_those_of_the_plan_and_are_proven(version: StoredModel) -> None:
    torch.set_num_threads(2)
    try:
        loaded = load(version, CPU, max_batch=2, tune=True)
    finally:
        torch.set_num_threads(1)
    facts = loaded.card.facts
    assert facts.device == {1: "cpu (1 thread)", 2: "cpu (2 threads)"}[loaded.plan.threads]
    assert (facts.threads, facts.tuned) == (loaded.plan.threads, True)
    assert list(facts.seconds).index("tune") < list(facts.seconds).index("parity")


def test_pixels_that_are_normalised_wrongly_are_refused(
    version: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalise = PixelPass.__call__
    monkeypatch.setattr(PixelPass, "__call__", lambda self, pixels: normalise(self, pixels) * 1.001)
    with pytest.raises(ModelRefused, match="the answers to 1 rows of pixels differ by"):
        load(version, CPU)


@pytest.mark.usefixtures("odd")
def test_norms_with_batch_statistics_are_refused(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"architecture": "Odd", "options": {"tracked": False}}
    model = stored(tmp_path, tensors_of("Odd", tracked=False), labels=4, **keys)
    assert norms(catalog.build("Odd", {"tracked": False}))["first"].running_mean is None
    with pytest.raises(ModelRefused, match="batch statistics"):
        load(model, CPU)


# Reference answers


def answers_of(model: StoredModel) -> np.ndarray:
    file: np.ndarray = load_file(model.folder / "reference.safetensors")["answers"]
    return file


def with_answers(model: StoredModel, answers: np.ndarray) -> None:
    """Store other answers to the same probe."""
    reference.write(model, reference.read(model)[0], answers)


def test_without_stored_answers_they_are_computed_and_the_command_that_stores_them_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "foldserve.engine")
    model = stored(tmp_path, tensors_of())
    assert load(model, CPU).card.facts.reference == "computed"
    assert "digits/1: the reference answers are computed: there is no reference.safetensors" in caplog.text
    assert re.search(r"took \d+\.\d s; foldserve fold digits/1 --write-reference stores them", caplog.text)


def test_stored_answers_are_the_unfolded_network_in_float64_and_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "foldserve.engine")
    model = stored(tmp_path, tensors_of())
    computed = load(model, CPU).card.facts
    caplog.clear()
    assert write_reference(model) == model.folder / "reference.safetensors"
    recalled = load(model, CPU).card.facts
    assert (recalled.reference, caplog.text) == ("stored", "")
    assert recalled.fold["parity"] == computed.fold["parity"]
    assert recalled.fold["layers"] == computed.fold["layers"]
    network = catalog.build("digits", {})
    network.load_state_dict(tensors_of())
    rows, _ = reference.read(model)
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(rows).double()).numpy()
    np.testing.assert_allclose(answers_of(model), expected, rtol=1e-12, atol=1e-12)


def test_stored_answers_spare_the_float64_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stored(tmp_path, tensors_of())
    write_reference(model)

    def refuse(*_: Any) -> None:
        raise AssertionError("the reference was computed")

    monkeypatch.setattr("service.graph.reference.Reference.of", refuse)
    assert load(model, CPU).card.facts.reference == "stored"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda answers: -answers,
        lambda answers: answers[::-1],
        lambda answers: answers * (1 + 1e-3),
        lambda answers: answers[:, :9],
        lambda answers: answers[..., np.newaxis],
        lambda answers: 0 * answers,
    ],
    ids=["sign", "rows swapped", "a thousandth", "nine", "axis", "zeros"],
)
def test_stored_answers_that_the_network_does_not_give_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    model = stored(tmp_path, tensors_of())
    computed = load(model, CPU).card.facts
    write_reference(model)
    with_answers(model, wrong(answers_of(model)))
    facts = load(model, CPU).card.facts
    assert facts.reference == "computed"
    assert facts.fold["parity"] == computed.fold["parity"]
    assert "the stored reference answers are not what the network answers" in caplog.text


def test_new_weights_under_a_new_digest_make_the_stored_answers_void(tmp_path: Path) -> None:
    model = stored(tmp_path / "one", tensors_of())
    write_reference(model)
    tensors = tensors_of()
    tensors["fc2.bias"] += 1e-6
    other = stored(tmp_path / "other", tensors)
    shutil.copy(model.folder / "reference.safetensors", other.folder)
    assert load(other, CPU).card.facts.reference == "computed"


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None], ids=["empty", "zeros", "folder"])
def test_a_damaged_reference_stops_no_load(tmp_path: Path, content: bytes | None) -> None:
    model = stored(tmp_path, tensors_of())
    path = model.folder / "reference.safetensors"
    path.mkdir() if content is None else path.write_bytes(content)
    assert load(model, CPU).card.facts.reference == "computed"


@pytest.mark.usefixtures("odd")
def test_of_a_network_that_is_refused_no_answers_are_stored(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"architecture": "Odd", "options": {"tracked": False}}
    model = stored(tmp_path, tensors_of("Odd", tracked=False), labels=4, **keys)
    with pytest.raises(ModelRefused, match="batch statistics"):
        write_reference(model)
    assert not (model.folder / "reference.safetensors").exists()


# Memory


def test_the_card_says_what_the_plan_holds(loaded: Loaded, version: StoredModel) -> None:
    shown = loaded.card.facts.memory
    assert shown == loaded.plan.memory
    numbers = sum(tensor.numel() for tensor in tensors_of().values())
    assert 0.9 * 4 * numbers < sum(shown.values()) < 2 * 4 * numbers
    assert shown["graphs"] == 0


def test_of_the_unfolded_network_only_its_norms_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stored(tmp_path, tensors_of())
    build, weak = catalog.build, dict[str, weakref.ref[Tensor]]()

    def building(architecture: str, options: Any) -> nn.Module:
        network = build(architecture, options)
        weak.update({name: weakref.ref(tensor) for name, tensor in network.named_parameters()})
        return network

    monkeypatch.setattr(catalog, "build", building)
    loaded = load(model, CPU)
    gc.collect()
    assert loaded.card.vectors["bn1"]["weight"].shape == (32,)
    alive = {name.partition(".")[0] for name, reference in weak.items() if reference() is not None}
    assert alive == set()


def test_a_plan_keeps_no_weight_in_float64(version: StoredModel) -> None:
    def exact() -> set[int]:
        gc.collect()
        tensors = (held for held in gc.get_objects() if issubclass(type(held), Tensor))
        there = (tensor for tensor in tensors if tensor.device == CPU and tensor.dim() == 4)
        return {id(tensor) for tensor in there if tensor.dtype == torch.float64}

    before = exact()
    loaded = load(version, CPU)
    assert exact() <= before
    assert loaded.plan.programs[-1].steps


# Rows at once


class Wide(nn.Module):
    """One convolution whose result has 3 MiB a row in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 12288, 1), nn.BatchNorm2d(12288)

    def forward(self, x: Any) -> Any:
        return self.bn(self.conv(x)).mean((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize(
    ("asked", "expected"), [({}, 8), ({"max_batch": 20}, 20), ({"precision": "bfloat16"}, 16)], ids=str
)
def test_a_cpu_computes_fewer_rows_at_once_where_they_are_large_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, expected: int
) -> None:
    monkeypatch.setitem(catalog._ARCHITECTURES, "Wide", Wide)
    serving = {"serving": Serving(max_batch=64)}
    model = stored(tmp_path, tensors_of("Wide"), labels=1, architecture="Wide", **serving)
    loaded = load(model, CPU, **asked)
    assert loaded.card.facts.max_batch == loaded.plan.max_batch == expected
