"""A source is in the store when it is folded and proven, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from service.engine import unfolded
from service.engine.loading import load
from service.engine.stopwatch import Stopwatch
from service.errors import InvalidManifest, InvalidWeights, ModelRefused, StoreError
from service.importing.architecture import Wishes, from_architecture
from service.importing.publishing import Report, next_version, publish
from service.network import catalog
from service.store.model_store import ModelStore
from tests.architectures.libraries import torchvision_models

from .checkpoints import PIXELS, trained, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from service.importing.source import Source


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def source(folder: Path, tensors: dict[str, Tensor] | None = None, **wishes: Any) -> Source:
    torch.save(weights_of() if tensors is None else tensors, folder / "run.pth")
    return from_architecture("digits", folder / "run.pth", Wishes(**{"input": PIXELS} | wishes))


def everything(store: ModelStore) -> list[str]:
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("*"))


# What is there then


def test_a_version_is_complete_and_loads_with_the_answers_that_were_stored(
    tmp_path: Path, store: ModelStore
) -> None:
    labels = tuple("abcdefghij")
    report = publish(source(tmp_path, labels=labels), store, "mine", 3)
    assert everything(store) == [
        "mine",
        "mine/3",
        "mine/3/labels.txt",
        "mine/3/model.toml",
        "mine/3/reference.safetensors",
        "mine/3/weights.safetensors",
    ]
    facts = load(store.open("mine"), torch.device("cpu")).card.facts
    assert (facts.reference, facts.labels, facts.fold["kept"]) == ("stored", list(labels), 0)
    assert report.facts.fold["norms"] == facts.fold["norms"] == 5
    assert str(report) == "mine/3"


def test_what_is_served_answers_as_the_network_that_was_trained(tmp_path: Path, store: ModelStore) -> None:
    publish(source(tmp_path), store, "mine")
    rows = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = trained().double()(rows.double())
    served = load(store.open("mine"), torch.device("cpu")).plan(rows)
    assert float((served - expected).abs().max() / expected.abs().max()) < 1e-5


def test_the_manifest_says_where_it_comes_from(tmp_path: Path, store: ModelStore) -> None:
    publish(source(tmp_path), store, "mine")
    provenance = store.open("mine").manifest.provenance["import"]
    assert isinstance(provenance, dict)
    assert provenance["checkpoint"] == "run.pth"


def test_an_answer_that_is_no_vector_is_a_tensor(tmp_path: Path, store: ModelStore) -> None:
    torchvision_models()
    options: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    torch.save(catalog.build("timm:test_resnet", options).state_dict(), tmp_path / "run.pth")
    brought = from_architecture("timm:test_resnet", tmp_path / "run.pth", Wishes(options=options))
    report = publish(brought, store, "maps")
    assert (report.facts.manifest.output.task, len(report.facts.output_shape)) == ("tensor", 3)
    assert store.open("maps").manifest == report.facts.manifest


def test_versions_follow_each_other(tmp_path: Path, store: ModelStore) -> None:
    brought = source(tmp_path)
    assert next_version(store, "mine") == 1
    versions = [publish(brought, store, "mine").facts.version for _ in range(2)]
    publish(brought, store, "mine", 7)
    assert versions == [1, 2]
    assert next_version(store, "mine") == 8


# The report comes first


def test_what_was_found_is_announced_before_anything_is_in_the_store(
    tmp_path: Path, store: ModelStore
) -> None:
    seen: list[tuple[Report, list[str]]] = []
    report = publish(
        source(tmp_path), store, "mine", announce=lambda found: seen.append((found, store.names()))
    )
    assert seen == [(report, [])]
    assert store.names() == ["mine"]


def test_whoever_hears_the_report_may_still_stop_it(tmp_path: Path, store: ModelStore) -> None:
    def stop(_: Report) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(source(tmp_path), store, "mine", announce=stop)
    assert everything(store) == []


# What is refused leaves nothing


def test_a_version_that_is_there_is_not_touched(tmp_path: Path, store: ModelStore) -> None:
    publish(source(tmp_path), store, "mine", 1)
    before = {path: path.read_bytes() for path in (store.folder / "mine" / "1").iterdir()}
    with pytest.raises(StoreError, match=r"^mine/1 is in the store already$"):
        publish(source(tmp_path, weights_of(seed=1)), store, "mine", 1)
    assert {path: path.read_bytes() for path in (store.folder / "mine" / "1").iterdir()} == before


def test_labels_that_are_not_as_many_as_the_answers_are_refused(tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(InvalidManifest, match=r"^mine/1: 3 labels for an answer of shape \[10\]$"):
        publish(source(tmp_path, labels=("a", "b", "c")), store, "mine")
    assert everything(store) == []


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, store: ModelStore) -> None:
    broken = weights_of()
    next(tensor for name, tensor in broken.items() if name.endswith("running_var")).fill_(float("nan"))
    with pytest.raises(ModelRefused):
        publish(source(tmp_path, broken), store, "mine")
    assert everything(store) == []


def test_a_source_that_writes_other_weights_than_its_networks_is_refused(
    tmp_path: Path, store: ModelStore
) -> None:
    brought = replace(source(tmp_path), network=trained(seed=1))
    with pytest.raises(ModelRefused, match="what was stored answers otherwise than the network"):
        publish(brought, store, "mine")
    assert everything(store) == []


def test_a_source_whose_file_is_not_what_it_says_is_refused(tmp_path: Path, store: ModelStore) -> None:
    brought = source(tmp_path)

    def damaged(folder: Path) -> dict[str, Any]:
        table = brought.write(folder)
        with (folder / "weights.safetensors").open("ab") as file:
            file.write(b"\0")
        return table

    with pytest.raises(InvalidWeights, match="but the manifest says"):
        publish(replace(brought, write=damaged), store, "mine")
    assert everything(store) == []


def test_the_reference_answers_are_those_of_the_network_in_float64(tmp_path: Path, store: ModelStore) -> None:
    publish(source(tmp_path), store, "mine")
    answers = load_file(store.folder / "mine" / "1" / "reference.safetensors")["answers"]
    assert answers.dtype == np.float64
    rows = unfolded.read(store.open("mine"), Stopwatch()).reference.rows
    with torch.inference_mode():
        expected = trained().double()(rows.double())
    assert np.allclose(answers, expected.numpy(), rtol=1e-12, atol=1e-12)
