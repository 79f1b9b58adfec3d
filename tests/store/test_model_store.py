"""The store lists what may be served, names what is wrong, and shows a version whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.errors import InvalidManifest, StoreError, UnknownModel, UnknownVersion
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = """
architecture = "digits"
outputs = [{ labels = "labels.txt" }]
[input]
shape = [1, 8, 8]
colour = "grayscale"
mean = [0.5]
std = [0.5]
[weights]
sha256 = "%s"
""" % ("0" * 64)


def fill(folder: Path, mark: str = "") -> None:
    (folder / "model.toml").write_text(MANIFEST)
    (folder / "labels.txt").write_text(f"zero{mark}\none\n")


def marked(mark: str) -> Callable[[Path], None]:
    return lambda folder: fill(folder, mark)


def fail(folder: Path) -> None:
    fill(folder, " half")
    raise RuntimeError("the fill failed")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def files(store: ModelStore) -> list[str]:
    """Everything below the store, hidden or not."""
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("*"))


# Listing


def test_a_store_that_is_not_there_is_refused_without_its_path(store: ModelStore) -> None:
    with pytest.raises(
        StoreError, match=r"^the model store '.*' is not a folder; --model-store names another$"
    ):
        store.names()


def test_an_empty_store_holds_no_names(store: ModelStore) -> None:
    store.folder.mkdir()
    assert store.names() == []


def test_names_and_versions_are_sorted_and_versions_are_numbers(store: ModelStore) -> None:
    for name, version in (("b", 10), ("b", 9), ("a", 1), ("b", 100)):
        store.publish(name, version, fill)
    assert store.names() == ["a", "b"]
    assert store.versions("b") == [9, 10, 100]
    assert str(store.open("b")) == "b/100"
    assert str(store.open("b", 9)) == "b/9"


def test_stray_files_and_hidden_folders_are_passed_over(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    (store.folder / "README.md").write_text("stray")
    (store.folder / "lost+found").mkdir()
    (store.folder / ".git").mkdir()
    (store.folder / "a" / "notes.txt").write_text("stray")
    (store.folder / "a" / "2").write_text("a file, no version")
    (store.folder / "a" / ".publishing-x").mkdir()
    assert store.names() == ["a"]
    assert store.versions("a") == [1]


@pytest.mark.parametrize("name", ["a b", "_a", "-a", "é", "a" * 129, "a\n"])
def test_a_folder_whose_name_is_not_allowed_is_named(store: ModelStore, name: str) -> None:
    (store.folder / name).mkdir(parents=True)
    with pytest.raises(StoreError, match="is no model name"):
        store.names()


@pytest.mark.parametrize("entry", ["0", "01", "-1", "1.0", "latest", "1" * 19, "²", "1\n", "+1", "1_0"])
def test_a_folder_that_is_no_version_is_named(store: ModelStore, entry: str) -> None:
    store.publish("a", 1, fill)
    (store.folder / "a" / entry).mkdir()
    with pytest.raises(StoreError, match="is no version; versions are positive integers"):
        store.versions("a")


# Opening


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/..", "../a", "/etc", "a\x00b", "a/1", "other", "a\n", ".hidden", "a" * 4096]
)
def test_a_name_that_the_store_has_not_is_unknown_whatever_it_spells(store: ModelStore, name: str) -> None:
    store.publish("a", 1, fill)
    for ask in (store.versions, store.open):
        with pytest.raises(UnknownModel) as caught:
            ask(name)
        assert str(caught.value) == f"the store has no model {name!r}"


@pytest.mark.parametrize("version", [0, -1, 2, 10**30])
def test_an_unknown_version_is_told_which_there_are(store: ModelStore, version: int) -> None:
    store.publish("a", 1, fill)
    store.publish("a", 3, fill)
    with pytest.raises(UnknownVersion, match=rf"^model 'a' has no version {version}; it has 1, 3$"):
        store.open("a", version)


def test_a_model_folder_without_versions_has_none_to_open(store: ModelStore) -> None:
    (store.folder / "a").mkdir(parents=True)
    with pytest.raises(UnknownVersion, match=r"^model 'a' has no version$"):
        store.open("a")


def test_opening_reads_the_manifest_and_no_weights(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    stored = store.open("a")
    assert stored.manifest.architecture == "digits"
    assert stored.weights_path == store.folder / "a" / "1" / "weights.safetensors"
    assert not stored.weights_path.exists()


def test_a_version_without_a_manifest_is_refused_by_name(store: ModelStore) -> None:
    store.publish("a", 1, lambda folder: None)
    with pytest.raises(InvalidManifest, match=r"^a/1/model\.toml is missing$"):
        store.open("a")


# Labels


def test_labels_are_the_lines_in_order(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    assert store.open("a").labels() == ("zero", "one")


def test_a_manifest_that_names_no_labels_has_none(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    manifest = store.folder / "a" / "1" / "model.toml"
    manifest.write_text(MANIFEST.replace('labels = "labels.txt"', 'name = "logits"'))
    assert store.open("a").labels() is None


def test_a_label_keeps_what_is_inside_its_line(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    content = "tab\tand two  spaces\nü, 数字\nform\x0cfeed\nlast"
    (store.folder / "a" / "1" / "labels.txt").write_text(content, encoding="utf-8")
    assert store.open("a").labels() == tuple(content.split("\n"))


@pytest.mark.parametrize("damage", ["missing", "not UTF-8", "a folder"])
def test_labels_that_cannot_be_read_are_named(store: ModelStore, damage: str) -> None:
    labels = store.publish("a", 1, fill) / "labels.txt"
    labels.unlink()
    if damage == "not UTF-8":
        labels.write_bytes(b"\xff\n")
    if damage == "a folder":
        labels.mkdir()
    said = r"^a/1: the labels file labels\.txt cannot be read as UTF-8 text$"
    with pytest.raises(InvalidManifest, match=said):
        store.open("a").labels()


def test_labels_of_an_absurd_size_are_refused_unread(store: ModelStore) -> None:
    labels = store.publish("a", 1, fill) / "labels.txt"
    with labels.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidManifest, match="is larger than"):
        store.open("a").labels()


# Publishing


def test_a_version_is_invisible_until_it_is_filled(store: ModelStore) -> None:
    seen: list[list[str]] = []

    def look(folder: Path) -> None:
        fill(folder)
        seen.append(store.names())

    assert store.publish("a", 1, look) == store.folder / "a" / "1"
    assert seen == [[]]
    assert store.versions("a") == [1]
    assert files(store) == ["a", "a/1", "a/1/labels.txt", "a/1/model.toml"]


def test_a_fill_that_fails_leaves_the_other_versions_alone(store: ModelStore) -> None:
    store.publish("a", 1, fill)
    before = files(store)
    with pytest.raises(RuntimeError, match="the fill failed"):
        store.publish("a", 2, fail)
    assert files(store) == before


def test_a_first_fill_that_fails_leaves_no_model_behind(store: ModelStore) -> None:
    store.folder.mkdir()
    with pytest.raises(RuntimeError, match="the fill failed"):
        store.publish("a", 1, fail)
    assert store.names() == []
    assert files(store) == []


@pytest.mark.parametrize(
    ("name", "version"),
    [("..", 1), ("a/b", 1), ("", 1), ("a\x00", 1), ("/a", 1), ("a\n", 1), ("a", 0), ("a", -1), ("a", 10**18)],
)
def test_a_name_or_version_that_could_not_be_opened_again_is_not_published(
    store: ModelStore, name: str, version: int
) -> None:
    store.folder.mkdir()
    with pytest.raises(StoreError, match="is no model name and version"):
        store.check_publishable(name, version)
    with pytest.raises(StoreError, match="is no model name and version"):
        store.publish(name, version, fill)
    assert files(store) == []


def test_a_version_that_is_there_is_not_published_again(store: ModelStore) -> None:
    store.publish("a", 1, marked(" old"))
    with pytest.raises(StoreError, match=r"^a/1 is in the store already$"):
        store.publish("a", 1, fail)
    assert store.open("a").labels() == ("zero old", "one")


def test_a_version_that_appears_meanwhile_is_not_overwritten(store: ModelStore) -> None:
    def race(folder: Path) -> None:
        fill(folder, " second")
        store.publish("a", 1, marked(" first"))

    with pytest.raises(StoreError, match=r"^a/1 is in the store already$"):
        store.publish("a", 1, race)
    assert store.open("a").labels() == ("zero first", "one")


def test_a_replacement_takes_the_place_of_the_whole_version(store: ModelStore) -> None:
    (store.publish("a", 1, marked(" old")) / "extra").write_text("x")
    store.publish("a", 1, marked(" new"), replace=True)
    assert store.open("a").labels() == ("zero new", "one")
    assert files(store) == ["a", "a/1", "a/1/labels.txt", "a/1/model.toml"]


def test_a_replacement_that_fails_keeps_the_old_version(store: ModelStore) -> None:
    store.publish("a", 1, marked(" old"))
    with pytest.raises(RuntimeError, match="the fill failed"):
        store.publish("a", 1, fail, replace=True)
    assert store.open("a").labels() == ("zero old", "one")


def test_a_replacement_that_cannot_be_moved_in_keeps_the_old_version(store: ModelStore) -> None:
    store.publish("a", 1, marked(" old"))

    def vanish(folder: Path) -> None:
        folder.rmdir()

    with pytest.raises((OSError, StoreError)):
        store.publish("a", 1, vanish, replace=True)
    assert store.open("a").labels() == ("zero old", "one")


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_what_is_published_may_be_read_by_everybody(store: ModelStore) -> None:
    folder = store.publish("a", 1, fill)
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.parent, folder)] == ["0o755", "0o755"]
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}


# Killed while publishing


def test_what_a_killed_import_left_goes_with_the_next_one(store: ModelStore) -> None:
    left = store.folder / ".publishing-dead" / "a" / "1"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    store.publish("b", 1, fill)
    assert files(store) == ["b", "b/1", "b/1/labels.txt", "b/1/model.toml"]


def test_what_another_import_is_filling_stays(store: ModelStore) -> None:
    def meanwhile(folder: Path) -> None:
        fill(folder, " slow")
        store.publish("a", 2, marked(" quick"))

    store.publish("a", 1, meanwhile)
    assert [store.open("a", version).labels() for version in (1, 2)] == [
        ("zero slow", "one"),
        ("zero quick", "one"),
    ]


def test_a_new_model_is_never_there_without_its_version(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    rename = Path.rename

    def watched(source: Path, target: Path) -> Path:
        seen.append(files(store))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", watched)
    store.publish("replaced", 1, fill)
    assert [[name for name in names if not name.startswith(".")] for names in seen] == [[]]
    assert store.versions("replaced") == [1]


# Fingerprints


def test_any_file_of_a_version_makes_another_of_it_but_what_is_hidden_does_not(store: ModelStore) -> None:
    store.publish("digits", 1, fill)
    folder, before = store.folder / "digits" / "1", store.fingerprint("digits", 1)
    (folder / ".writing-abc").mkdir()
    (folder / ".writing-abc" / "baseline.safetensors").touch()
    assert store.fingerprint("digits", 1) == before
    (folder / "baseline.safetensors").touch()
    assert store.fingerprint("digits", 1) != before
