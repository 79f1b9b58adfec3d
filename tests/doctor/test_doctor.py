"""`foldserve doctor` on the shipped digits model, with mistakes planted in its manifest."""

from __future__ import annotations

import json
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import torch

from service import cli
from service.store import manifest as manifests
from service.store.model_store import ModelStore
from tests.evaluation.folders import ROOT, held_out_digits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEAN, STD = 0.3048, 0.3754
"""What the shipped model was trained with."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return held_out_digits(tmp_path_factory.mktemp("images"), range(16))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    shutil.copytree(ROOT / "model_store" / "digits", tmp_path / "store" / "digits")
    return ModelStore(tmp_path / "store")


def planted(store: ModelStore, **wrong: Any) -> None:
    """Write a mistake into the manifest."""
    stored = store.open("digits")
    document = stored.manifest.model_dump(exclude_none=True)
    document["input"].update(wrong)
    manifests.write(stored.folder / manifests.FILE_NAME, manifests.parse(document))


def said(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path, *more: str, status: int = 0
) -> tuple[str, str]:
    where = ["--model-store", str(store.folder), "--device", "cpu", "--threads", "1"]
    assert cli.main(["doctor", "digits", "--images", str(images), *where, *more]) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_shipped_manifest_fits(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path
) -> None:
    out, err = said(capsys, store, images, "--json")
    found = json.loads(out)
    assert err.strip() == ""
    assert (found["model"], found["version"], found["images"]) == ("digits", 1, 16)
    assert (found["verdict"], found["fault"], found["fix"]) == ("fits", None, [])
    scores = [each["score"] for each in found["variants"]]
    assert scores == sorted(scores)
    assert {"as configured", "inverted", "pixels from 0 to 255"} <= {
        each["name"] for each in found["variants"]
    }


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"mean": [0.0], "std": [1.0]}, "mean and std"),
        ({"mean": [MEAN + STD * MEAN], "std": [STD**2]}, "mean and std"),
        ({"mean": [MEAN * 255], "std": [STD * 255]}, "division by 255"),
        ({"mean": [MEAN / 255], "std": [STD / 255]}, "division by 255"),
        ({"mean": [1 - MEAN], "std": [-STD]}, "inversion"),
    ],
    ids=["missing", "doubled", "divided twice", "not divided", "inverted"],
)
def test_a_planted_fault_is_named(
    capsys: pytest.CaptureFixture[str],
    store: ModelStore,
    images: Path,
    wrong: dict[str, list[float]],
    fault: str,
) -> None:
    planted(store, **wrong)
    found = json.loads(said(capsys, store, images, "--json")[0])
    assert (found["verdict"], found["fault"]) == ("fault", fault)


def test_the_lines_that_it_prints_are_those_that_were_right(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path
) -> None:
    planted(store, mean=[MEAN * 255], std=[STD * 255])
    found = json.loads(said(capsys, store, images, "--json")[0])
    assert tomllib.loads("\n".join(found["fix"])) == {"mean": [MEAN], "std": [STD]}
    planted(store, **tomllib.loads("\n".join(found["fix"])))
    assert json.loads(said(capsys, store, images, "--json")[0])["verdict"] == "fits"


def test_a_person_is_told_the_fault_and_the_lines(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path
) -> None:
    planted(store, mean=[MEAN / 255], std=[STD / 255])
    out, _ = said(capsys, store, images)
    assert "digits/1, 16 images: fault (division by 255). Pixels are not divided by 255" in out
    assert f"    mean = [{MEAN}]\n    std = [{STD}]\n" in out


def test_unreadable_images_are_named_and_the_others_count(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(12))
    (folder / "broken.png").write_bytes(b"no image")
    out, _ = said(capsys, store, folder)
    assert "digits/1, 12 images: fits." in out
    assert "Not read: broken.png" in out


def test_a_file_name_that_would_write_to_the_terminal_is_written_out(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(4))
    (folder / "a\x1b[31m\n\udcffé.png").write_bytes(b"no image")
    out, _ = said(capsys, store, folder)
    assert r"Not read: a\x1b[31m\n\udcffé.png: " in out


def test_of_many_images_32_are_looked_at(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(40))
    assert json.loads(said(capsys, store, folder, "--json")[0])["images"] == 32


def test_one_image_is_enough_for_a_gross_fault_only(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(1))
    found = json.loads(said(capsys, store, folder, "--json")[0])
    assert (found["verdict"], found["fault"]) == ("unclear", None)
    planted(store, mean=[MEAN / 255], std=[STD / 255])
    assert json.loads(said(capsys, store, folder, "--json")[0])["fault"] == "division by 255"


def test_a_folder_without_a_readable_image_is_refused(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    assert (
        "none of the images in 'broken' can be read" in said(capsys, store, tmp_path / "broken", status=1)[1]
    )
