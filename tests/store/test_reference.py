"""Stored reference answers are used only where they are of these weights and this architecture."""

from __future__ import annotations

import json
import os
import stat
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.errors import StoreError
from service.store import reference
from service.store.answers import encoded
from service.store.manifest import Input, Manifest, Output, Weights
from service.store.model_store import StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = np.linspace(-1, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
ANSWERS = np.linspace(0, 1, 20).reshape(2, 10) / 3

WHOLE: dict[str, np.ndarray] = {"rows": ROWS, "answers": ANSWERS}


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """A version whose weights nobody reads here; anybody in its group may."""
    manifest = Manifest(
        architecture="digits",
        options={"num_classes": 10, "width": 2},
        input=Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0]),
        outputs=[Output()],
        weights=Weights(sha256="a" * 64),
    )
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "weights.safetensors").chmod(0o640)
    return StoredModel("digits", 1, tmp_path, manifest)


def changed(stored: StoredModel, **keys: Any) -> StoredModel:
    return replace(stored, manifest=stored.manifest.model_copy(update=keys))


def file_of(stored: StoredModel) -> Path:
    return stored.folder / "reference.safetensors"


def why_not(stored: StoredModel) -> str:
    with pytest.raises(reference.NotUsable) as caught:
        reference.read(stored)
    return str(caught.value)


def test_answers_are_read_as_they_were_written_bit_for_bit(stored: StoredModel) -> None:
    assert reference.write(stored, ROWS, ANSWERS) == file_of(stored)
    rows, read = reference.read(stored)
    assert (str(rows.dtype), str(read.dtype)) == ("float32", "float64")
    assert (rows.tobytes(), read.tobytes()) == (ROWS.tobytes(), ANSWERS.tobytes())


def test_strided_answers_are_written_in_their_order(stored: StoredModel) -> None:
    strided = np.asfortranarray(ANSWERS)
    reference.write(stored, ROWS, strided)
    reference.write(stored, np.asfortranarray(ROWS), strided)
    assert np.array_equal(reference.read(stored)[0], ROWS)
    assert np.array_equal(reference.read(stored)[1], ANSWERS)


def test_whoever_may_read_the_weights_may_read_the_answers(stored: StoredModel) -> None:
    reference.write(stored, ROWS, ANSWERS)
    assert stat.S_IMODE(file_of(stored).stat().st_mode) == 0o640


def test_writing_again_replaces_the_file_and_leaves_nothing_else(stored: StoredModel) -> None:
    reference.write(stored, ROWS, ANSWERS)
    reference.write(stored, ROWS, 2 * ANSWERS)
    assert np.array_equal(reference.read(stored)[1], 2 * ANSWERS)
    assert {file.name for file in stored.folder.iterdir()} == {"weights.safetensors", "reference.safetensors"}


def test_a_folder_that_cannot_be_written_to_is_an_error_without_its_path(stored: StoredModel) -> None:
    gone = replace(stored, folder=stored.folder / "gone")
    with pytest.raises(
        StoreError, match=r"^digits/1: reference\.safetensors cannot be written: No such file"
    ):
        reference.write(gone, ROWS, ANSWERS)


def test_where_there_is_no_file_it_says_so(stored: StoredModel) -> None:
    assert why_not(stored) == "there is no reference.safetensors"


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"weights": Weights(sha256="b" * 64)}, "weights"),
        ({"architecture": "resnet18"}, "architecture"),
        ({"options": {"num_classes": 10, "width": 4}}, "options"),
        ({"options": {}}, "options"),
    ],
    ids=["weights", "architecture", "options", "no options"],
)
def test_answers_of_something_else_are_not_used(stored: StoredModel, keys: Any, word: str) -> None:
    reference.write(stored, ROWS, ANSWERS)
    assert why_not(changed(stored, **keys)) == f"reference.safetensors is of another {word}"


def test_the_order_of_the_options_does_not_matter(stored: StoredModel) -> None:
    reference.write(stored, ROWS, ANSWERS)
    other = changed(stored, options={"width": 2, "num_classes": 10})
    assert np.array_equal(reference.read(other)[1], ANSWERS)


def test_a_file_of_another_format_is_not_used(stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    reference.write(stored, ROWS, ANSWERS)
    monkeypatch.setattr(reference, "_FORMAT", "1")
    assert why_not(stored) == "reference.safetensors is of another format"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"answers": ANSWERS.astype(np.float32)}, "does not hold one float64 answer for each row"),
        ({"answers": ANSWERS[:1]}, "does not hold one float64 answer for each row"),
        ({"answers": np.array([1.0])}, "does not hold one float64 answer for each row"),
        ({"answers": np.full((2, 10), np.nan)}, "holds numbers that are not finite"),
        ({"answers": np.full((2, 10), -np.inf)}, "holds numbers that are not finite"),
        ({"rows": ROWS.astype(np.float64)}, "does not hold two float32 rows or more"),
        ({"rows": ROWS[:1], "answers": ANSWERS[:1]}, "does not hold two float32 rows or more"),
        ({"rows": ROWS.reshape(2, 1, 4, 16)}, "does not hold two float32 rows or more"),
        ({"rows": ROWS.reshape(-1)}, "does not hold two float32 rows or more"),
        ({"rows": np.inf * ROWS}, "holds numbers that are not finite"),
    ],
    ids=[
        *("float32", "one answer", "numbers", "nan", "inf"),
        *("float64 rows", "one row", "shape", "flat", "infinite rows"),
    ],
)
def test_a_file_of_the_right_key_with_wrong_answers_is_not_used(
    stored: StoredModel, content: dict[str, np.ndarray], complaint: str
) -> None:
    file_of(stored).write_bytes(encoded({**WHOLE, **content}, reference._key(stored)))
    assert complaint in why_not(stored)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_without_a_part_is_not_used(stored: StoredModel, name: str) -> None:
    parts = {other: part for other, part in WHOLE.items() if other != name}
    file_of(stored).write_bytes(encoded(parts, reference._key(stored)))
    assert "does not hold" in why_not(stored)


def test_a_single_bit_that_flipped_makes_the_file_unusable(stored: StoredModel) -> None:
    content = bytearray(reference.write(stored, ROWS, ANSWERS).read_bytes())
    content[-1] ^= 1
    file_of(stored).write_bytes(content)
    assert why_not(stored) == "reference.safetensors is damaged: it does not hold what was written"


def test_a_header_of_an_unreasonable_size_is_not_parsed(stored: StoredModel) -> None:
    key = reference._key(stored)
    file_of(stored).write_bytes(encoded({"answers": ANSWERS}, {**key, "more": "x" * (1 << 16)}))
    assert why_not(stored) == "reference.safetensors has a header of an unreasonable size"


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def entries(**more: Any) -> bytes:
    return json.dumps(
        {"answers": {"dtype": "F64", "shape": [2, 10], "data_offsets": [0, 160]}, **more}
    ).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\x80\x04\x95pickle, not safetensors",
        header(b"{}", 1 << 60),
        header(b" " * (1 << 17)),
        header(b"[[[["),
        header(entries()) + bytes(159),
        header(entries()) + bytes(161),
        header(entries(__metadata__=[1])) + bytes(160),
        header(entries(__metadata__=None)) + bytes(160),
        header(entries()) + bytes(160),
        header(entries().replace(b"F64", b"F99")) + bytes(160),
        header(entries().replace(b"F64", b"BF16").replace(b"160", b"40")) + bytes(40),
    ],
    ids=[
        *("empty", "short", "pickle", "long", "blank", "json", "truncated", "trailing"),
        *("list", "null", "no metadata", "dtype", "bfloat16"),
    ],
)
def test_a_damaged_file_is_not_used_and_nothing_worse(stored: StoredModel, content: bytes) -> None:
    file_of(stored).write_bytes(content)
    assert why_not(stored).startswith("reference.safetensors")


def be_a_folder(path: Path) -> None:
    path.mkdir()


def be_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def be_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def be_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("change", [be_a_folder, be_a_pipe, be_endless, be_huge])
def test_what_is_no_file_of_a_reasonable_size_is_not_opened(
    stored: StoredModel, change: Callable[[Path], None]
) -> None:
    change(file_of(stored))
    assert why_not(stored) == "reference.safetensors is no regular file of a reasonable size"
