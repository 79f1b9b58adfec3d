"""An architecture takes a checkpoint as it is, or says what of it does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from service.errors import InvalidConfiguration, InvalidManifest, InvalidWeights
from service.importing.architecture import Wishes, from_architecture, input_from
from service.importing.preset import Preset
from service.network import catalog
from service.network.batch_norm import BatchNorm2d

from .checkpoints import PIXELS, behind, trained, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from service.importing.source import Source

IMAGENET = Preset(
    "somebody",
    {"shape": [3, 224, 224], "resize": 256, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"},
)


def brought(folder: Path, document: object, architecture: str = "digits", **wishes: Any) -> Source:
    torch.save(document, folder / "run.pth")
    return from_architecture(architecture, folder / "run.pth", Wishes(**{"input": PIXELS} | wishes))


def refused(folder: Path, document: object, architecture: str = "digits", **wishes: Any) -> str:
    with pytest.raises((InvalidWeights, InvalidManifest, InvalidConfiguration)) as caught:
        brought(folder, document, architecture, **wishes)
    return str(caught.value)


def answers(source: Source) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = source.network(rows())
    return answer


def rows() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


# Weights


@pytest.mark.parametrize(
    "document",
    [
        weights_of(),
        behind("module.", weights_of()),
        {"state_dict": behind("model.", weights_of()), "pytorch-lightning_version": "2.5.0", "epoch": 3},
        {"state_dict": behind("net._orig_mod.", weights_of()), "hyper_parameters": {"lr": 0.1}},
        {"model": behind("_orig_mod.", weights_of()), "optimizer": {"state": {}, "param_groups": []}},
    ],
    ids=["plain", "DataParallel", "Lightning", "Lightning, compiled", "compiled"],
)
def test_the_network_answers_as_the_one_that_was_trained(tmp_path: Path, document: object) -> None:
    source = brought(tmp_path, document)
    with torch.inference_mode():
        assert torch.equal(answers(source), trained()(rows()))


def test_what_is_written_is_what_was_trained_by_the_networks_names(tmp_path: Path) -> None:
    source = brought(tmp_path, behind("module.", weights_of()))
    table = source.write(tmp_path)["weights"]
    written = load_file(tmp_path / table["file"])
    assert written.keys() == weights_of().keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in weights_of().items())
    assert source.table == {"architecture": "digits", "options": {}}


def test_weights_in_half_precision_become_float32(tmp_path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in weights_of().items()}
    table = brought(tmp_path, halves).write(tmp_path)["weights"]
    written = load_file(tmp_path / table["file"])
    assert {tensor.dtype for tensor in written.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(written[name], tensor.to(written[name].dtype)) for name, tensor in halves.items())


def test_checkpoints_from_before_batches_were_counted_count_none(tmp_path: Path) -> None:
    old = {k: v for k, v in weights_of().items() if not k.endswith("num_batches_tracked")}
    brought(tmp_path, old).write(tmp_path)
    assert load_file(tmp_path / "weights.safetensors").keys() == old.keys()


def test_tied_weights_are_written_by_each_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = trained()
    norm = next(module for module in tied.modules() if isinstance(module, BatchNorm2d))
    norm.bias = norm.weight
    monkeypatch.setattr(catalog, "build", lambda *_: tied)
    brought(tmp_path, tied.state_dict()).write(tmp_path)
    assert load_file(tmp_path / "weights.safetensors").keys() == tied.state_dict().keys()


def test_where_it_comes_from_is_told(tmp_path: Path) -> None:
    source = brought(tmp_path, weights_of())
    assert source.provenance is not None
    assert source.provenance.keys() == {"checkpoint", "checkpoint_sha256"}
    assert source.provenance["checkpoint"] == "run.pth"


# What does not fit


def test_missing_unexpected_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    wrong = weights_of()
    first, second = list(wrong)[:2]
    wrong["other.weight"] = wrong.pop(first)
    wrong[second] = torch.ones(3, 5)
    said = refused(tmp_path, wrong)
    assert said.startswith("the weights do not fit the architecture; ")
    for part in (
        f"missing: {first}",
        "unexpected: other.weight",
        f"wrong shape: {second} is [3, 5] instead of",
    ):
        assert part in said


def test_of_many_wrong_names_a_few_are_named_and_the_rest_are_counted(tmp_path: Path) -> None:
    said = refused(tmp_path, {f"layer{n}.weight": torch.ones(1) for n in range(30)})
    assert "unexpected: layer0.weight, layer1.weight, " in said
    assert "and 22 more" in said
    assert len(said) < 1000


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    assert "the weights do not fit the architecture; missing: " in refused(
        tmp_path, dict(trained("resnet18").state_dict())
    )


@pytest.mark.parametrize(
    ("architecture", "options", "said"),
    [
        ("resnet19", {}, "architecture 'resnet19' is unknown; there are: "),
        ("elsewhere:resnet18", {}, "there are no architectures of 'elsewhere'"),
        ("digits", {"depth": 3}, "architecture 'digits': "),
    ],
)
def test_what_the_catalog_has_not_is_refused(
    tmp_path: Path, architecture: str, options: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, weights_of(), architecture, options=options)


# The head


def test_the_number_of_classes_is_that_of_the_checkpoints_head(tmp_path: Path) -> None:
    source = brought(tmp_path, behind("module.", weights_of(num_classes=7)))
    assert source.table["options"] == {"num_classes": 7}
    assert answers(source).shape == (3, 7)
    assert "num_classes is 7, the size of the checkpoint's head." in source.remarks


def test_a_number_of_classes_that_is_said_is_taken_as_it_is(tmp_path: Path) -> None:
    said = refused(tmp_path, weights_of(num_classes=7), options={"num_classes": 9})
    assert "instead of [9, " in said


def test_another_width_is_no_number_of_classes(tmp_path: Path) -> None:
    wrong = weights_of()
    name = next(name for name in wrong if wrong[name].dim() == 4)
    wrong[name] = torch.ones(7, *wrong[name].shape[1:])
    assert f"wrong shape: {name} is [7, " in refused(tmp_path, wrong)


# Rows


def test_what_the_user_says_goes_before_what_the_preset_says() -> None:
    spec = input_from(IMAGENET, {"mean": [0.1] * 3, "resize": 300})
    assert (spec.mean, spec.std, spec.resize, spec.interpolation) == ([0.1] * 3, [0.2] * 3, 300, "bicubic")


@pytest.mark.parametrize(
    ("said", "resize"),
    [
        ({}, 256),
        ({"shape": [3, 224, 224]}, 256),
        ({"shape": [3, 112, 112]}, 128),
        ({"shape": [3, 448, 448]}, 512),
        ({"shape": [3, 112, 112], "resize": 112}, 112),
        ({"resize": None}, None),
    ],
)
def test_another_size_is_cropped_from_as_much_of_the_image(said: dict[str, Any], resize: int | None) -> None:
    assert input_from(IMAGENET, said).resize == resize


def test_rows_of_one_channel_are_grayscale_and_need_a_normalisation() -> None:
    said = {"shape": [1, 28, 28]}
    with pytest.raises(InvalidConfiguration, match=r"give --mean and --std$"):
        input_from(Preset("nobody", {}, crop=None), said)
    spec = input_from(Preset("nobody", {}, crop=None), {**said, **PIXELS})
    assert (spec.colour, spec.resize) == ("grayscale", None)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"shape": [1, 28, 28]}, "mean has 3 values for 1 channels"),
        ({"std": [0.0] * 3}, "std.0: must not be 0"),
        ({"resize": 100}, "resize 100 is smaller than the crop 224x224"),
    ],
)
def test_what_does_not_go_together_is_said(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidConfiguration, match=complaint):
        input_from(IMAGENET, said)


# Labels


def test_labels_are_those_that_are_said(tmp_path: Path) -> None:
    labels = tuple("abcdefghij")
    assert brought(tmp_path, weights_of(), labels=labels).labels == labels


def test_without_labels_the_user_is_told(tmp_path: Path) -> None:
    source = brought(tmp_path, weights_of())
    assert source.labels is None
    assert "There are no labels; answers will say numbers. Give them with --labels." in source.remarks
