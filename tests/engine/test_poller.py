"""The poller: it asks for what has changed in the store, once, when nobody is writing it any more."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from service.engine.change import Change, Settled
from service.engine.poller import Poller
from service.engine.selection import Selection
from service.errors import DoesNotFit, FoldserveError, LoadStalled, ModelRefused
from service.settings import Settings
from service.store.model_store import ModelStore
from tests.e2e.stores import copied

if TYPE_CHECKING:
    from pathlib import Path


def poller(folder: Path, **settings: Any) -> Poller:
    return Poller(Selection(ModelStore(folder), Settings(model_control="poll", **settings)))


def looks(asking: Poller, times: int = 1) -> list[str]:
    """What it asks for in so many looks."""
    changes = [change for _ in range(times) for change in asking.look()]
    return [f"{change.action} {change.model}" for change in changes]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The models a and b."""
    copied(tmp_path, "a")
    copied(tmp_path, "b")
    return tmp_path


def settled(folder: Path, **settings: Any) -> Poller:
    """One that has asked for all that is there."""
    asking = poller(folder, **settings)
    looks(asking, 2)
    return asking


# Once, and when it is still


def test_what_two_looks_have_found_is_asked_for_once(store: Path) -> None:
    asking = poller(store)
    assert looks(asking) == []
    assert looks(asking) == ["load a", "load b"]
    assert looks(asking, 5) == []


def test_a_new_version_is_asked_for_once(store: Path) -> None:
    asking = settled(store)
    copied(store, "a", 2)
    assert [looks(asking) for _ in range(4)] == [[], ["load a"], [], []]


def test_a_new_model_is_asked_for_once(store: Path) -> None:
    asking = settled(store)
    copied(store, "c")
    assert [looks(asking) for _ in range(3)] == [[], ["load c"], []]


def test_a_version_that_is_being_written_is_not_asked_for_until_it_is_still(store: Path) -> None:
    asking = settled(store)
    whole, written = store / "a" / "1", store / "a" / "2"
    written.mkdir()
    for file in sorted(whole.iterdir()):
        content = file.read_bytes()
        for part in (content[: len(content) // 2], content):
            (written / file.name).write_bytes(part)
            assert looks(asking) == []
    assert [looks(asking) for _ in range(3)] == [["load a"], [], []]


def test_one_that_stood_still_half_written_is_asked_for_again_when_it_is_whole(store: Path) -> None:
    asking = settled(store)
    written = copied(store, "a", 2)
    weights = (written / "weights.safetensors").read_bytes()
    (written / "weights.safetensors").write_bytes(weights[:100])
    assert looks(asking, 5) == ["load a"], "which the engine refuses"
    (written / "weights.safetensors").write_bytes(weights)
    assert looks(asking, 5) == ["load a"]


def test_files_that_were_replaced_are_asked_for_and_so_are_those_that_were_before(store: Path) -> None:
    asking = settled(store)
    labels = store / "b" / "1" / "labels.txt"
    before = labels.read_bytes()
    for content in (before.replace(b"0", b"7"), before):
        labels.write_bytes(content)
        assert looks(asking, 3) == ["load b"]


def test_a_change_that_was_taken_back_between_two_looks_is_none(store: Path) -> None:
    asking = settled(store)
    copied(store, "a", 2)
    assert looks(asking) == []
    shutil.rmtree(store / "a" / "2")
    assert looks(asking, 3) == []


def test_versions_that_are_not_to_be_served_are_not_asked_for(store: Path) -> None:
    asking = settled(store, models="a", versions="1,3")
    copied(store, "a", 2)
    copied(store, "b", 3)
    copied(store, "c", 3)
    assert looks(asking, 3) == []
    copied(store, "a", 3)
    assert looks(asking, 3) == ["load a"]


# What goes


@pytest.mark.parametrize("what", ["a", "a/1"])
def test_a_model_that_two_looks_have_missed_is_unloaded_once(store: Path, what: str) -> None:
    asking = settled(store)
    shutil.rmtree(store / what)
    assert [looks(asking) for _ in range(4)] == [[], ["unload a"], [], []]


def test_a_model_that_comes_back_is_asked_for_again(store: Path) -> None:
    asking = settled(store)
    shutil.rmtree(store / "a")
    assert looks(asking, 3) == ["unload a"]
    copied(store, "a")
    assert looks(asking, 3) == ["load a"]


def test_a_model_that_is_moved_away_and_back_between_looks_stays(store: Path) -> None:
    """As somebody does who replaces it by hand."""
    asking = settled(store)
    (store / "a").rename(store / ".a")
    assert looks(asking) == []
    (store / ".a").rename(store / "a")
    assert looks(asking, 3) == []


def test_a_model_that_was_never_asked_for_is_not_unloaded(store: Path) -> None:
    asking = poller(store)
    looks(asking)
    shutil.rmtree(store / "a")
    assert looks(asking, 3) == ["load b"]


def test_a_version_that_goes_beside_others_is_a_new_state_of_its_model(store: Path) -> None:
    copied(store, "a", 2)
    asking = settled(store)
    shutil.rmtree(store / "a" / "2")
    assert looks(asking, 3) == ["load a"]


# Another engine, and a store that cannot be looked at


def test_of_a_new_engine_everything_is_asked_for_again(store: Path) -> None:
    asking = settled(store)
    asking.forget()
    assert [looks(asking) for _ in range(3)] == [["load a", "load b"], [], []]


def test_an_engine_that_is_lost_during_a_look_is_not_taken_for_the_next_one(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that look asks for is refused; the look is on a thread of its own."""
    asking = poller(store)
    looks(asking)
    state = Selection.state

    def lost_meanwhile(selection: Selection, name: str) -> object:
        asking.forget()
        return state(selection, name)

    with monkeypatch.context() as patched:
        patched.setattr(Selection, "state", lost_meanwhile)
        assert looks(asking) == ["load a", "load b"]
    assert [looks(asking) for _ in range(3)] == [["load a", "load b"], [], []]


def test_while_the_store_is_away_nothing_is_asked_for_and_the_log_says_so_once(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asking = settled(store)
    away = store.with_name("away")
    for _ in range(2):
        caplog.clear()
        store.rename(away)
        assert looks(asking, 3) == []
        (record,) = caplog.records
        assert record.message == (
            "the model store cannot be looked at: "
            f"the model store {store.name!r} is not a folder; --model-store names another"
        )
        away.rename(store)
        assert looks(asking, 3) == []
    copied(store, "a", 2)
    assert looks(asking, 3) == ["load a"]


def test_a_model_that_cannot_be_looked_at_stays_as_it_is_and_the_others_change(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asking = settled(store)
    (store / "a" / "old").mkdir()
    copied(store, "b", 2)
    assert looks(asking, 4) == ["load b"]
    assert [record.message for record in caplog.records] == [
        "the model store cannot be looked at: a/old is no version; versions are positive integers"
    ]
    copied(store, "a", 2)
    (store / "a" / "old").rmdir()
    assert looks(asking, 3) == ["load a"]


def test_a_folder_that_goes_during_a_look_harms_nobody(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asking = settled(store)
    has_manifest = ModelStore.has_manifest

    def gone_meanwhile(model_store: ModelStore, name: str, version: int) -> bool:
        found = has_manifest(model_store, name, version)
        shutil.rmtree(store / "a", ignore_errors=True)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(ModelStore, "has_manifest", gone_meanwhile)
        assert looks(asking) == []
    assert "a/1 is gone, or is being changed" in caplog.text
    assert looks(asking, 3) == ["unload a"]


# What was refused for what may pass


def ended(asking: Poller, model: str, why: FoldserveError | None = None) -> None:
    """Tell it what became of the load that it asked for."""
    change = Change(action="load", model=model)
    asking.hear(Settled.refused(change, why) if why else Settled(change=change))


@pytest.mark.parametrize("why", [DoesNotFit("4 MiB are free"), LoadStalled("it took too long")])
def test_what_may_pass_is_asked_for_again_after_pauses_that_double(store: Path, why: FoldserveError) -> None:
    asking = settled(store)
    pauses = []
    for _ in range(7):
        ended(asking, "a", why)
        looked = 1
        while not (asked := asking.look()):
            looked += 1
        assert asked == [Change(action="load", model="a", is_retry=True)]
        pauses.append(looked)
    assert pauses == [1, 2, 4, 8, 16, 16, 16]


def test_it_is_not_asked_for_twice_while_it_is_tried(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    assert looks(asking, 50) == ["load a"]


def test_what_will_not_pass_is_not_asked_for_again(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    assert looks(asking) == ["load a"]
    ended(asking, "a", ModelRefused("parity does not hold"))
    assert looks(asking, 50) == []


def test_what_was_made_at_last_is_not_asked_for_again(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    assert looks(asking) == ["load a"]
    ended(asking, "a")
    assert looks(asking, 50) == []


def test_a_change_that_was_made_has_others_tried_at_once(store: Path) -> None:
    """It may have given memory back."""
    asking = settled(store)
    for _ in range(4):
        ended(asking, "a", DoesNotFit("no"))
    assert looks(asking) == []
    shutil.rmtree(store / "b")
    assert [looks(asking) for _ in range(2)] == [[], ["unload b"]]
    asking.hear(Settled(change=Change(action="unload", model="b")))
    assert looks(asking) == ["load a"]


def test_files_that_change_are_a_new_state_and_no_try(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    copied(store, "a", 2)
    changes = [change for _ in range(20) for change in asking.look()]
    assert changes == [Change(action="load", model="a")]


def test_a_model_that_is_gone_is_not_tried_again(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    shutil.rmtree(store / "a")
    assert looks(asking, 20) == ["unload a"]


def test_a_new_engine_is_asked_for_everything_and_for_nothing_twice(store: Path) -> None:
    asking = settled(store)
    ended(asking, "a", DoesNotFit("no"))
    asking.forget()
    assert [looks(asking) for _ in range(3)] == [["load a", "load b"], [], []]


# What has no manifest yet


def test_a_version_without_a_manifest_is_not_there_yet(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    asking = settled(store)
    manifest = copied(store, "a", 2) / "model.toml"
    content = manifest.read_bytes()
    manifest.unlink()
    manifest_of_new = copied(store, "c") / "model.toml"
    manifest_of_new.unlink()
    assert looks(asking, 5) == []
    manifest.write_bytes(content)
    assert looks(asking, 5) == ["load a"]
    manifest_of_new.write_bytes(content)
    assert looks(asking, 5) == ["load c"]
    assert caplog.text == ""


def test_a_model_whose_manifest_is_taken_away_stays_as_it_is(store: Path) -> None:
    asking = settled(store)
    manifest = store / "a" / "1" / "model.toml"
    content = manifest.read_bytes()
    manifest.unlink()
    assert looks(asking, 5) == []
    manifest.write_bytes(content)
    assert looks(asking, 5) == ["load a"]
