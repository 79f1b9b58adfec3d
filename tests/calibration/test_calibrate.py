"""`foldserve calibrate`: what it records, where, and what a load makes of it."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from service import cli
from service.engine.loading import load
from service.engine.watching import Wanted
from service.store.model_store import ModelStore
from service.training.split import digits_split
from tests.evaluation.folders import ROOT, held_out_digits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.inspection.drift_report import DriftReport

ROWS = range(200)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return held_out_digits(tmp_path_factory.mktemp("images"), ROWS)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    shutil.copytree(ROOT / "model_store" / "digits", tmp_path / "store" / "digits")
    return ModelStore(tmp_path / "store")


def calibrated(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path, *more: str, status: int = 0
) -> tuple[str, str]:
    where = ["--model-store", str(store.folder), "--device", "cpu", "--threads", "1"]
    assert cli.main(["calibrate", "digits", "--images", str(images), *where, *more]) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


def report(store: ModelStore, apart: Path | None = None) -> DriftReport:
    """What a service that loads it begins with."""
    loaded = load(store.open("digits"), torch.device("cpu"), watch=Wanted("all", 0.05, apart))
    assert loaded.watching is not None
    return loaded.watching.drift.report


def test_a_baseline_is_stored_beside_the_weights_and_a_load_finds_it(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path
) -> None:
    out, err = calibrated(capsys, store, images, "--json")
    said = json.loads(out)
    assert err.strip() == ""
    assert (said["model"], said["version"], said["rows"], said["classes"]) == ("digits", 1, 200, 10)
    assert said["thresholds"]["input"] == 0.05
    file = store.open("digits").folder / "baseline.safetensors"
    assert file.exists()
    found = report(store)
    assert (found.reference, found.baseline_rows, found.state) == ("baseline", 200, "warming")


def test_it_holds_the_moments_that_numpy_finds_and_nothing_of_an_image(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path
) -> None:
    calibrated(capsys, store, images)
    arrays = load_file(store.open("digits").folder / "baseline.safetensors")
    stored = store.open("digits")
    weights = load_file(stored.weights_path)
    given = stored.manifest.input
    pixels = digits_split().held_out_pixels[: len(ROWS)]
    with torch.inference_mode():
        x = (pixels.double() / 255 - given.mean[0]) / given.std[0]
        kernel = torch.from_numpy(weights["conv1.weight"]).double()
        x = torch.nn.functional.conv2d(x, kernel, padding=1)
    np.testing.assert_allclose(arrays["mean"][:32], x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["var"][:32], x.var((0, 2, 3), correction=0), rtol=1e-4)
    assert {name: array.shape for name, array in arrays.items()} == {
        "rows": (1,),
        "mean": (192,),
        "var": (192,),
        "class_rows": (10,),
        "class_mean": (10, 64),
        "class_square": (10, 64),
        "quantiles": (4, 2),
        "row_scores": (4,),
        "texture_channels": (64,),
        "texture_floor": (64,),
        "texture_class_rows": (10,),
        "texture_class_mean": (10, 64),
        "texture_inverse": (64, 64),
        "texture_numbers": (2,),
    }


def test_a_store_that_must_not_change_has_its_baselines_elsewhere(
    capsys: pytest.CaptureFixture[str], store: ModelStore, images: Path, tmp_path: Path
) -> None:
    before = sorted(path.name for path in store.open("digits").folder.iterdir())
    calibrated(capsys, store, images, "--baselines", str(tmp_path / "apart"))
    assert sorted(path.name for path in store.open("digits").folder.iterdir()) == before
    assert (tmp_path / "apart/digits/1/baseline.safetensors").exists()
    assert report(store).reference == "frozen"
    assert report(store, tmp_path / "apart").reference == "baseline"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-8]), "is not a safetensors file"),
        (lambda file: file.write_bytes(_flipped(file.read_bytes())), "does not hold what was written"),
        (lambda file: shutil.copy(file.parent / "reference.safetensors", file), "is of another"),
    ],
    ids=["cut off", "damaged", "another file"],
)
def test_a_baseline_that_does_not_fit_is_not_used_and_the_log_says_why(
    capsys: pytest.CaptureFixture[str],
    store: ModelStore,
    images: Path,
    caplog: pytest.LogCaptureFixture,
    change: object,
    why: str,
) -> None:
    calibrated(capsys, store, images)
    assert callable(change)
    change(store.open("digits").folder / "baseline.safetensors")
    caplog.set_level(logging.WARNING)
    assert report(store).reference == "frozen"
    assert why in caplog.text


def _flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def test_copies_count_once_and_what_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(70))
    shutil.copytree(folder / "0", folder / "again" / "zeros")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / ".hidden.png").write_bytes(b"not looked at")
    (folder / "notes.txt").write_text("neither")
    out, _ = calibrated(capsys, store, folder)
    copies = len(list((folder / "0").iterdir()))
    assert "a baseline of 70 images" in out
    assert f"{copies} images were copies of others" in out
    assert "Not read: broken.png" in out
    assert "hidden" not in out


def test_too_few_images_are_refused_and_nothing_is_stored(
    capsys: pytest.CaptureFixture[str], store: ModelStore, tmp_path: Path
) -> None:
    folder = held_out_digits(tmp_path / "images", range(63))
    _, err = calibrated(capsys, store, folder, status=1)
    assert "a baseline takes 64 different images, better some hundreds; 'images' holds 63" in err
    assert not (store.open("digits").folder / "baseline.safetensors").exists()
