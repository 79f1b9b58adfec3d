"""A folder a class: names match labels or indices, and what does not is named."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from service.errors import InvalidConfiguration
from service.evaluation import pictures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ANIMALS = ("cat", "dog", "7", "crane", "crane")


def folder_of(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def labels_of(root: Path, labels: Sequence[str] | None = ANIMALS, classes: int = 5) -> dict[str, int]:
    return {picture.name: picture.label for picture in pictures.of(root, labels, classes).pictures}


def why_not(root: Path, labels: Sequence[str] | None = ANIMALS, classes: int = 5) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        pictures.of(root, labels, classes)
    return str(caught.value)


def test_a_folder_is_named_for_a_label_or_for_its_index(tmp_path: Path) -> None:
    folder_of(tmp_path, "dog/a.png", "3/b.jpg", "0/c")
    assert labels_of(tmp_path) == {"dog/a.png": 1, "3/b.jpg": 3, "0/c": 0}


def test_a_label_that_looks_like_an_index_is_a_label(tmp_path: Path) -> None:
    assert labels_of(folder_of(tmp_path, "7/a.png"), classes=8) == {"7/a.png": 2}


def test_without_labels_folders_are_indices(tmp_path: Path) -> None:
    assert labels_of(folder_of(tmp_path, "00/a.png", "04/a.png"), None) == {"00/a.png": 0, "04/a.png": 4}


@pytest.mark.parametrize("name", ["Cat", "bird", "5", "-1", "1.0", "²", "9" * 30])
def test_a_folder_that_matches_no_class_is_named(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, "cat/a.png", f"{name}/a.png")
    expected = f"the folder {name!r} is neither a label of the model nor an index from 0 to 4"
    assert why_not(tmp_path) == expected


def test_a_label_of_two_classes_matches_neither(tmp_path: Path) -> None:
    assert "has the label of several classes (3, 4)" in why_not(folder_of(tmp_path, "crane/a.png"))


def test_two_folders_of_one_class_are_an_error(tmp_path: Path) -> None:
    assert (
        why_not(folder_of(tmp_path, "cat/a.png", "0/b.png"))
        == "the folders '0' and 'cat' are both of class 0"
    )


def test_an_image_beside_the_folders_is_an_error_and_a_note_is_not(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/a.png", "LICENSE", "labels.csv")
    assert labels_of(tmp_path) == {"cat/a.png": 0}
    assert why_not(folder_of(tmp_path, "b.PNG")) == "the image 'b.PNG' is in no folder of a class"


def test_a_folder_within_a_class_is_an_error(tmp_path: Path) -> None:
    said = why_not(folder_of(tmp_path, "cat/black/a.png"))
    assert said == "the folder 'cat' holds the folder 'black' where only images are expected"


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_an_error_without_its_path(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, "file")
    assert why_not(tmp_path / name) == f"{name!r} is not a folder of images"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir(mode=0)
    assert why_not(tmp_path) == "the folder 'cat' cannot be read: Permission denied"


def test_what_begins_with_a_dot_is_not_looked_at(tmp_path: Path) -> None:
    folder_of(tmp_path, ".git/config", ".hidden.png", "cat/.DS_Store", "cat/a.png")
    assert labels_of(tmp_path) == {"cat/a.png": 0}


def test_empty_folders_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/a.png", "dog/.hidden")
    assert pictures.of(tmp_path, ANIMALS, 5).empty == ("dog",)


def test_any_beginning_is_spread_over_the_classes_and_within_each(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{label}/{n:02d}.png" for label in range(10) for n in range(21)))
    found = pictures.of(tmp_path, None, 10).pictures
    assert len({picture.name for picture in found}) == 210
    assert len({picture.label for picture in found[:10]}) == 10
    half = sorted(int(picture.path.stem) for picture in found[:110] if picture.label == 4)
    assert len(half) == 11
    assert max(after - before for before, after in pairwise([-1, *half, 21])) <= 3


def test_of_more_classes_than_are_taken_those_taken_lie_far_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{label}/a.png" for label in range(100)))
    first = sorted(picture.label for picture in pictures.of(tmp_path, None, 100).pictures[:10])
    assert max(after - before for before, after in pairwise([-1, *first, 100])) <= 20


def test_a_class_with_few_images_ends_early(tmp_path: Path) -> None:
    folder_of(tmp_path, "0/a.png", "1/a.png", "1/b.png", "1/c.png")
    assert [picture.label for picture in pictures.of(tmp_path, None, 2).pictures] == [0, 1, 1, 1]


def test_the_order_is_the_same_every_time(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{label}/{n}.png" for label in (3, 1, 2) for n in range(5)))
    assert pictures.of(tmp_path, None, 5) == pictures.of(tmp_path, None, 5)
