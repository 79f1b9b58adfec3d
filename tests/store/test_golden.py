"""Golden inputs are read as they were written, or the reason is an error that says what to do."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.errors import StoreError
from service.store import golden
from service.store.answers import encoded
from service.store.golden import Golden
from service.store.manifest import Input, Manifest, Output, Weights
from service.store.model_store import StoredModel

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.arange(3 * 64, dtype=np.uint8).reshape(3, 1, 8, 8)
ANSWERS = np.linspace(0, 1, 30).reshape(3, 10) / 3
GOLDEN = Golden(("cat/ä.png", "dog/[1].png", "x" * 300), PIXELS, ANSWERS, {"float32": 1e-7, "float16": 1e-3})
GRAY = Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0])


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """A version whose weights nobody reads here; anybody in its group may."""
    manifest = Manifest(
        architecture="digits", input=GRAY, outputs=[Output()], weights=Weights(sha256="a" * 64)
    )
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "weights.safetensors").chmod(0o640)
    return StoredModel("digits", 1, tmp_path, manifest)


def changed(stored: StoredModel, **keys: Any) -> StoredModel:
    return replace(stored, manifest=stored.manifest.model_copy(update=keys))


def why_not(stored: StoredModel) -> str:
    with pytest.raises(StoreError) as caught:
        golden.read(stored)
    return str(caught.value)


def test_they_are_read_as_they_were_written_bit_for_bit(stored: StoredModel) -> None:
    assert golden.write(stored, GOLDEN) == stored.folder / "golden.safetensors"
    read = golden.read(stored)
    assert read is not None
    assert (read.names, read.unfolded_errors) == (GOLDEN.names, GOLDEN.unfolded_errors)
    assert (read.pixels.tobytes(), read.answers.tobytes()) == (PIXELS.tobytes(), ANSWERS.tobytes())


def test_a_version_without_the_file_has_none(stored: StoredModel) -> None:
    assert golden.read(stored) is None


def test_writing_again_replaces_them_in_one_step_and_leaves_nothing_else(stored: StoredModel) -> None:
    golden.write(stored, GOLDEN)
    golden.write(stored, replace(GOLDEN, names=("a", "b", "c")))
    read = golden.read(stored)
    assert read is not None
    assert read.names == ("a", "b", "c")
    assert {file.name for file in stored.folder.iterdir()} == {"weights.safetensors", "golden.safetensors"}


def test_a_write_that_fails_leaves_the_old_file(stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    golden.write(stored, GOLDEN)
    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(StoreError, match=r"golden\.safetensors cannot be written: No space left"):
        golden.write(stored, replace(GOLDEN, names=("a", "b", "c")))
    monkeypatch.undo()
    read = golden.read(stored)
    assert read is not None
    assert read.names == GOLDEN.names
    assert {file.name for file in stored.folder.iterdir()} == {"weights.safetensors", "golden.safetensors"}


def test_whoever_may_read_the_weights_may_read_them(stored: StoredModel) -> None:
    assert stat.S_IMODE(golden.write(stored, GOLDEN).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"weights": Weights(sha256="b" * 64)}, "weights"),
        ({"architecture": "resnet18"}, "architecture"),
        ({"options": {"width": 4}}, "options"),
        ({"input": GRAY.model_copy(update={"mean": [0.5]})}, "preprocessing"),
        ({"input": GRAY.model_copy(update={"std": [0.5]})}, "preprocessing"),
    ],
    ids=["weights", "architecture", "options", "mean", "std"],
)
def test_those_of_another_network_are_an_error_that_says_what_to_do(
    stored: StoredModel, keys: Any, word: str
) -> None:
    golden.write(stored, GOLDEN)
    assert why_not(changed(stored, **keys)) == (
        f"digits/1: golden.safetensors is of another {word}; foldserve evaluate digits/1 --images DIR "
        "writes it anew, and without the file no golden input is checked"
    )


def test_of_the_crop_only_the_result_counts(stored: StoredModel) -> None:
    golden.write(stored, GOLDEN)
    assert golden.read(changed(stored, input=GRAY.model_copy(update={"resize": 9}))) is not None


@pytest.mark.parametrize("position", [-1, 200])
def test_a_damaged_file_is_an_error(stored: StoredModel, position: int) -> None:
    content = bytearray(golden.write(stored, GOLDEN).read_bytes())
    content[position] ^= 1
    (stored.folder / "golden.safetensors").write_bytes(content)
    assert "golden.safetensors" in why_not(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": PIXELS.astype(np.float32)},
        {"pixels": PIXELS[:2]},
        {"pixels": PIXELS.reshape(3, 1, 4, 16)},
        {"answers": ANSWERS.astype(np.float32)},
        {"answers": ANSWERS[:2]},
        {"answers": np.full((3, 10), np.nan)},
        {"names": np.zeros(3, np.uint8)},
        {"names": np.frombuffer(b"[]", np.uint8)},
        {"names": np.frombuffer(b"3", np.uint8)},
        {"unfolded_error.float32": np.zeros(2)},
    ],
    ids=str,
)
def test_what_does_not_belong_together_is_an_error(
    stored: StoredModel, change: dict[str, np.ndarray]
) -> None:
    names = np.frombuffer(b'["a", "b", "c"]', np.uint8)
    arrays: dict[str, np.ndarray] = {"pixels": PIXELS, "answers": ANSWERS, "names": names}
    path = stored.folder / "golden.safetensors"
    path.write_bytes(encoded(arrays, golden._key(stored)))
    assert golden.read(stored) is not None
    path.write_bytes(encoded({**arrays, **change}, golden._key(stored)))
    assert "does not hold" in why_not(stored)


@pytest.mark.parametrize(
    ("row", "expected"), [([1, 8, 8], 64), ([3, 224, 224], 64), ([3, 2048, 2048], 10), ([3, 65536, 65536], 1)]
)
def test_so_many_are_kept_as_a_reasonable_file_holds(row: list[int], expected: int) -> None:
    assert golden.at_most(row) == expected
