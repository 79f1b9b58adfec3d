"""The selection: the versions that the settings choose of those that the store has now."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from service import settings as reading
from service.engine.selection import Selection
from service.errors import InvalidConfiguration, StoreError, UnknownModel, UnknownVersion
from service.settings import Settings
from service.store.model_store import ModelStore
from tests.e2e.stores import copied

if TYPE_CHECKING:
    from pathlib import Path


def selection(folder: Path, again: list[tuple[str, int]] | None = None, **settings: Any) -> Selection:
    return Selection(ModelStore(folder), Settings(**settings), again)


def at_start(chosen: Selection) -> list[str]:
    return [str(stored) for stored, _ in chosen.at_start()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1, 2, 9 and 10 of a, and 3 of b."""
    folder = tmp_path_factory.mktemp("store")
    for name, version in (("a", 10), ("a", 9), ("a", 2), ("a", 1), ("b", 3)):
        copied(folder, name, version)
    return folder


# Which versions


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ("latest", ["a/10", "b/3"]),
        ("latest:1", ["a/10", "b/3"]),
        ("latest:2", ["a/9", "a/10", "b/3"]),
        ("latest:99", ["a/1", "a/2", "a/9", "a/10", "b/3"]),
        ("all", ["a/1", "a/2", "a/9", "a/10", "b/3"]),
    ],
)
def test_of_each_model_the_policy_s_versions_are_served_in_their_order(
    store: Path, versions: str, chosen: list[str]
) -> None:
    assert at_start(selection(store, versions=versions)) == chosen


@pytest.mark.parametrize(
    ("versions", "chosen"), [("9", [9]), ("9,1", [1, 9]), ("1,1", [1]), ("1,5,10", [1, 10])]
)
def test_of_a_list_those_are_served_that_are_there(store: Path, versions: str, chosen: list[int]) -> None:
    assert [each.stored.version for each in selection(store, versions=versions).of("a")] == chosen


def test_a_model_with_none_of_the_listed_versions_is_an_error_and_so_is_one_that_is_not_there(
    store: Path,
) -> None:
    chosen = selection(store, versions="1")
    with pytest.raises(UnknownVersion, match=r"^model 'b' has none of the versions that are to be served$"):
        chosen.of("b")
    with pytest.raises(UnknownVersion):
        chosen.at_start()
    with pytest.raises(UnknownModel):
        chosen.of("c")


def test_the_models_are_those_of_the_setting_or_all(store: Path) -> None:
    assert selection(store).names() == ["a", "b"]
    assert selection(store, models="b").names() == ["b"]
    assert at_start(selection(store, models="b,a")) == ["b/3", "a/10"]
    with pytest.raises(UnknownModel):
        selection(store, models="c").at_start()


@pytest.mark.parametrize(
    "versions",
    [
        *("", "0", "01", "-1", "1,", ",1", "1,,2", "1, 2", "1.0", "9" * 19, "٣", "ALL", "all\n", "newest"),
        *("latest:", "latest:0", "latest:-1", "latest,1"),
    ],
)
def test_any_other_choice_of_versions_is_an_error(versions: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"^FOLDSERVE_VERSIONS: "):
        reading.read({"versions": versions})


def test_the_disk_is_looked_at_anew_each_time(tmp_path: Path) -> None:
    copied(tmp_path, "a", 1)
    chosen = selection(tmp_path)
    assert at_start(chosen) == ["a/1"]
    copied(tmp_path, "a", 2)
    assert at_start(chosen) == ["a/2"]


def test_a_version_is_known_by_its_files_before_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is replaced meanwhile must not be taken for the one that was read."""
    version = copied(tmp_path, "a", 1)
    before = ModelStore(tmp_path).fingerprint("a", 1)
    read = ModelStore.open

    def replaced_meanwhile(store: ModelStore, *named: Any) -> Any:
        stored = read(store, *named)
        (version / "model.toml").write_bytes((version / "model.toml").read_bytes() + b"\n")
        return stored

    monkeypatch.setattr(ModelStore, "open", replaced_meanwhile)
    chosen = selection(tmp_path)
    assert chosen.of("a")[0].fingerprint == before != chosen.of("a")[0].fingerprint


# Nothing to serve, and what was served


@pytest.mark.parametrize("control", ["poll", "explicit"])
def test_an_empty_store_is_an_error_unless_models_may_come_later(tmp_path: Path, control: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"^the model store holds no model$"):
        selection(tmp_path).at_start()
    assert selection(tmp_path, model_control=control).at_start() == []


def test_a_store_that_is_not_there_is_an_error_whoever_controls(tmp_path: Path) -> None:
    for control in ("none", "poll", "explicit"):
        with pytest.raises(StoreError):
            selection(tmp_path / "gone", model_control=control).at_start()


def test_an_engine_in_another_s_place_serves_what_that_one_did_whatever_the_settings_choose(
    store: Path,
) -> None:
    chosen = selection(store, [("a", 2), ("b", 3)], versions="latest", models="a")
    assert chosen.is_forgiving
    assert at_start(chosen) == ["a/2", "b/3"]
    assert not selection(store).is_forgiving


def test_what_is_gone_or_broken_since_is_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        copied(tmp_path, name)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b" / "1" / "model.toml").write_text("[[")
    again = [("a", 1), ("b", 1), ("c", 1), ("c", 2)]
    assert at_start(selection(tmp_path, again, model_control="explicit")) == ["c/1"]
    for lost in ("a/1", "b/1", "c/2"):
        assert f"{lost} is served no more: " in caplog.text


def test_an_engine_in_the_place_of_one_that_served_nothing_serves_nothing(store: Path) -> None:
    assert at_start(selection(store, [], model_control="explicit")) == []


# What tells that something has changed


def test_a_state_is_another_once_a_version_comes_goes_or_changes(tmp_path: Path) -> None:
    chosen = selection(tmp_path, versions="all")
    assert chosen.state("a") == ()
    states = []

    def another() -> None:
        state = chosen.state("a")
        assert state not in states
        assert state == chosen.state("a"), "nothing changed in between"
        states.append(state)

    version = copied(tmp_path, "a", 1)
    another()
    copied(tmp_path, "a", 2)
    another()
    labels = version / "labels.txt"
    labels.write_bytes(labels.read_bytes().replace(b"0", b"7"))
    another()
    content = labels.read_bytes()
    labels.unlink()
    another()
    labels.write_bytes(content)
    another()
    shutil.rmtree(tmp_path / "a" / "2")
    another()
    shutil.rmtree(tmp_path / "a")
    assert chosen.state("a") == ()


def test_versions_that_are_not_chosen_change_no_state(tmp_path: Path) -> None:
    copied(tmp_path, "a", 1)
    copied(tmp_path, "a", 2)
    chosen = selection(tmp_path, versions="latest")
    before = chosen.state("a")
    shutil.rmtree(tmp_path / "a" / "1")
    assert chosen.state("a") == before
    assert selection(tmp_path, versions="1").state("a") == ()


def test_a_folder_that_goes_while_it_is_looked_into_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(tmp_path, "a", 1)
    chosen = selection(tmp_path)
    monkeypatch.setattr("pathlib.Path.is_dir", lambda _: True)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(StoreError, match=r"^a cannot be looked into: No such file or directory$"):
        chosen.state("a")
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreError, match="cannot be looked into: No such file or directory"):
        chosen.names()
