"""The turnover: what is served changes, and whatever was asked, or is asked meanwhile, is answered."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.engine import stalled, turnover
from service.engine.change import Change
from service.engine.control import Kind, Message
from service.engine.doorbell import Outcome
from service.errors import DoesNotFit, ModelRefused
from tests.e2e.stores import copied
from tests.engine.peer import HANG_S, Peer, hears, random_pixels, until
from tests.engine.turning import Turning, loaders, negated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from service.engine.loading import Loaded
    from service.plan.plan import Plan
    from service.store.model_store import StoredModel

PIXELS = random_pixels(3)
RETRY = Change(action="load", model="digits", is_retry=True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Turning]:
    """It serves the shipped model by the number 0."""
    copied(tmp_path)
    turning = Turning(tmp_path)
    yield turning
    turning.end()


@pytest.fixture
def peer(engine: Turning) -> Iterator[Peer]:
    made = engine.house.peer()
    yield made
    made.close()


def asked(peer: Peer, model: int = 0) -> np.ndarray:
    outputs, _ = peer.answer(peer.ring(PIXELS, model=model))
    answer = outputs.copy()
    peer._slots.give(0, peer._slots.taken)  # nothing else is under way
    peer.laid.clear()
    return answer


# What changes


def test_where_the_files_are_as_they_were_nothing_is_loaded(engine: Turning, peer: Peer) -> None:
    before = asked(peer)
    for _ in range(3):
        assert engine.made() == []
    assert not engine.loads.begun.acquire(blocking=False)
    np.testing.assert_array_equal(asked(peer), before)


def test_a_new_version_takes_the_place_of_the_one_before(engine: Turning, peer: Peer) -> None:
    before = asked(peer)
    negated(engine.folder, 2)
    assert engine.made() == ["1 is digits/2", "drop 0"]
    np.testing.assert_allclose(asked(peer, 1), -before, rtol=1e-5, atol=1e-5)
    assert engine.made() == []


def test_a_version_whose_files_were_replaced_is_loaded_anew_by_another_number(
    engine: Turning, peer: Peer
) -> None:
    before = asked(peer)
    negated(engine.folder, 1)
    assert engine.made() == ["1 is digits/1", "drop 0"]
    np.testing.assert_allclose(asked(peer, 1), -before, rtol=1e-5, atol=1e-5)


def test_the_version_before_is_served_again_where_the_newer_one_is_gone(engine: Turning) -> None:
    copied(engine.folder, version=2)
    assert engine.made() == ["1 is digits/2", "drop 0"]
    shutil.rmtree(engine.folder / "digits" / "2")
    assert engine.made() == ["2 is digits/1", "drop 1"]


def test_of_many_versions_only_those_that_changed_are_loaded(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        copied(tmp_path, version=version)
    turning = Turning(tmp_path, versions="latest:2")
    copied(tmp_path, version=4)
    assert turning.made() == ["2 is digits/4", "drop 0"]
    negated(tmp_path, 3)
    assert turning.made() == ["3 is digits/3", "drop 1"]
    turning.end()


def test_another_model_comes_beside_those_that_are_served(engine: Turning, peer: Peer) -> None:
    negated(engine.folder, 1, "other")
    assert engine.made("other") == ["1 is other/1"]
    np.testing.assert_allclose(asked(peer, 1), -asked(peer, 0), rtol=1e-5, atol=1e-5)


def test_a_model_is_unloaded_and_loaded_again(engine: Turning, peer: Peer) -> None:
    assert engine.made(action="unload") == ["drop 0"]
    assert engine.refused(action="unload") == "UnknownModel: no model 'digits' is served"
    assert engine.made() == ["1 is digits/1"]
    asked(peer, 1)


def test_an_engine_that_began_with_nothing_serves_what_comes(tmp_path: Path) -> None:
    turning = Turning(tmp_path)
    peer = turning.house.peer()
    copied(tmp_path)
    assert turning.made() == ["0 is digits/1"]
    asked(peer)
    peer.close()
    turning.end()


def test_changes_are_made_one_after_the_other_in_the_order_in_which_they_were_asked_for(
    engine: Turning,
) -> None:
    copied(engine.folder, "other")
    engine.loads.close()
    tickets = [engine.ask("other"), engine.ask("other", "unload"), engine.ask("none"), engine.ask("other")]
    engine.loads.wait_until_begun()
    engine.loads.open()
    assert [engine.all_told() for _ in tickets] == [
        ["1 is other/1", "1 is done"],
        ["drop 1", "2 is done"],
        ["3 UnknownModel: the store has no model 'none'"],
        ["2 is other/1", "4 is done"],
    ]


# What is refused


def truncate(version: Path) -> None:
    weights = version / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def without(name: str) -> Callable[[Path], object]:
    def remove(version: Path) -> None:
        (version / name).unlink()

    return remove


def empty(version: Path) -> None:
    for file in version.iterdir():
        file.unlink()


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights that are cut": (truncate, "LoadRefused: digits/2: weights.safetensors "),
    "no manifest": (without("model.toml"), "LoadRefused: digits/2"),
    "a manifest of garbage": (
        lambda version: (version / "model.toml").write_bytes(b"\xff\0[["),
        "LoadRefused: digits/2",
    ),
    "no weights": (without("weights.safetensors"), "LoadRefused: digits/2"),
    "no file at all": (
        empty,
        "LoadRefused: digits/2",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_version_is_refused_with_its_reason_and_the_one_before_still_answers(
    engine: Turning, peer: Peer, broken: str
) -> None:
    before = asked(peer)
    breaks, reason = BREAKS[broken]
    breaks(copied(engine.folder, version=2))
    assert engine.refused().startswith(reason)
    np.testing.assert_array_equal(asked(peer), before)
    shutil.rmtree(engine.folder / "digits" / "2")
    assert engine.made() == []


def test_one_broken_version_keeps_the_others_of_its_model_as_they_are(tmp_path: Path) -> None:
    copied(tmp_path)
    turning = Turning(tmp_path, versions="all")
    copied(tmp_path, version=2)
    truncate(copied(tmp_path, version=3))
    assert turning.refused().startswith("LoadRefused: digits/3")
    shutil.rmtree(tmp_path / "digits" / "3")
    assert turning.made() == ["1 is digits/2"]
    turning.end()


@pytest.mark.parametrize("name", ["other", "..", ".", "", "a/b", "digits/1", "x" * 256, "\0", "é"])
@pytest.mark.parametrize("action", ["load", "unload"])
def test_what_is_no_model_is_refused_as_unknown(engine_of_all: Turning, name: str, action: str) -> None:
    assert engine_of_all.refused(name, action).startswith("UnknownModel: ")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turning]:
    folder = tmp_path_factory.mktemp("store")
    copied(folder)
    turning = Turning(folder)
    yield turning
    turning.end()


def test_a_model_without_a_version_that_is_to_be_served_is_refused(tmp_path: Path) -> None:
    copied(tmp_path)
    turning = Turning(tmp_path, versions="1")
    (tmp_path / "digits" / "1").rename(tmp_path / "digits" / "2")
    assert turning.refused().startswith("UnknownVersion: model 'digits' has none of the versions")
    turning.end()


def test_a_reason_of_any_length_and_in_any_letters_is_told(engine: Turning, peer: Peer) -> None:
    copied(engine.folder, version=2)
    engine.loads.failure = ModelRefused("\udcff\0\U0001f4a5" * 100_000)
    assert engine.refused().startswith("LoadRefused: \\udcff\0\U0001f4a5")
    asked(peer)


def test_what_nobody_foresaw_while_loading_is_in_the_log_and_ends_nothing(
    engine: Turning, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    copied(engine.folder, version=2)
    engine.loads.failure = MemoryError("no memory is left")
    assert engine.refused() == "EngineFailed: the model could not be loaded; the cause is in the log"
    assert "no memory is left" in caplog.text
    asked(peer)
    engine.loads.failure = None
    assert engine.made() == ["1 is digits/2", "drop 0"]


def test_a_version_that_fails_at_its_first_rows_here_is_refused_and_ends_nothing(
    engine: Turning, peer: Peer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Iterator[torch.Tensor]:
        raise RuntimeError("the device is full")

    copied(engine.folder, version=2)
    monkeypatch.setattr(turnover, "_first_rows", failing)
    assert engine.refused() == "EngineFailed: the model could not be loaded; the cause is in the log"
    assert "the device is full" in caplog.text
    asked(peer)


# Beside what is served


def test_rows_are_answered_while_a_version_is_loaded(engine: Turning, peer: Peer) -> None:
    before = asked(peer)
    copied(engine.folder, version=2)
    engine.loads.close()
    ticket = engine.ask()
    engine.loads.wait_until_begun()
    for _ in range(20):
        np.testing.assert_array_equal(asked(peer), before)
    engine.loads.open()
    said: list[str] = []
    while not said or said[-1] != f"{ticket} is done":
        np.testing.assert_array_equal(asked(peer), before)
        said += engine.all_told() if not hears_nothing(engine) else []
    assert said == ["1 is digits/2", "drop 0", "1 is done"]


def hears_nothing(engine: Turning) -> bool:
    return not engine.house.control.has_message()


def test_what_is_dropped_is_computed_until_nobody_uses_it(engine: Turning, peer: Peer) -> None:
    before = asked(peer)
    negated(engine.folder, 2)
    engine.made()
    np.testing.assert_array_equal(asked(peer), before)
    engine.made(action="unload")
    np.testing.assert_array_equal(asked(peer, 0), before)
    np.testing.assert_allclose(asked(peer, 1), -before, rtol=1e-5, atol=1e-5)
    engine.retire(1)
    engine.made()
    np.testing.assert_array_equal(asked(peer, 0), before)


def test_to_ask_for_what_was_retired_breaks_the_protocol(engine: Turning) -> None:
    peer, other = engine.house.peer(1), engine.house.peer(2)
    copied(engine.folder, version=2)
    engine.made()
    engine.retire(0)
    until(lambda: 0 not in engine.house.engine._repertoire.facts)
    peer.ring(PIXELS)
    assert peer.is_hung_up_on()
    assert hears(engine.house.control) == Message(Kind.DISMISSED, 1)
    asked(other, 1)
    peer.close()
    other.close()


def test_rows_of_a_dead_worker_that_wait_when_their_model_is_retired_harm_nobody(tmp_path: Path) -> None:
    """Its end may be seen after the supervisor's word, which it is the reason for."""
    copied(tmp_path)
    turning = Turning(tmp_path, max_delay_ms=10_000)
    dead, peer = turning.house.peer(), turning.house.peer(1)
    dead.ring(PIXELS)
    until(lambda: turning.house.engine._queue.waiting_rows)
    copied(tmp_path, version=2)
    turning.made()
    turning.retire(0)
    until(lambda: 0 not in turning.house.engine._repertoire.facts)
    laid = peer.ring(random_pixels(64), model=1)
    assert peer.outcome(laid) is Outcome.ANSWERED
    dead.close()
    until(lambda: len(turning.house.engine._switchboard._jobs) == 1)
    peer.close()
    turning.end()


def test_what_is_retired_gives_its_memory_back(engine: Turning, peer: Peer) -> None:
    asked(peer)
    plans = engine.house.engine._repertoire
    copied(engine.folder, version=2)
    engine.made()
    held: list[weakref.ref[object]] = [weakref.ref(plans.plan(0)), weakref.ref(plans.facts[0])]
    gc.collect()
    assert all(each() is not None for each in held)
    engine.retire(0)
    until(lambda: not any(each() for each in held))
    asked(peer, 1)


def test_what_was_loaded_in_vain_gives_its_memory_back(tmp_path: Path) -> None:
    copied(tmp_path)
    turning = Turning(tmp_path, versions="all")
    copied(tmp_path, version=2)
    truncate(copied(tmp_path, version=3))
    loaded: list[weakref.ref[Plan]] = []
    load = turning.house.engine._turnover._preparation._load

    def watched(stored: StoredModel) -> Loaded:
        made = load(stored)
        loaded.append(weakref.ref(made.plan))
        return made

    turning.house.engine._turnover._preparation._load = watched
    assert turning.refused().startswith("LoadRefused: digits/3")
    assert len(loaded) == 1
    until(lambda: gc.collect() is not None and loaded[0]() is None)
    turning.end()


def test_no_number_is_given_twice_over_many_turns(engine: Turning, peer: Peer) -> None:
    for turn in range(4):
        negated(engine.folder, 1)
        assert engine.made() == [f"{turn + 1} is digits/1", f"drop {turn}"]
        engine.retire(turn)
        asked(peer, turn + 1)
    assert list(engine.house.engine._repertoire.facts) == [4]


# Endings


def test_an_engine_ends_in_order_while_it_loads(tmp_path: Path) -> None:
    copied(tmp_path)
    turning = Turning(tmp_path)
    peer = turning.house.peer()
    copied(tmp_path, version=2)
    turning.loads.close()
    turning.ask()
    turning.loads.wait_until_begun()
    turning.house.drain()
    asked(peer)
    assert turning.house.engine.is_loading
    peer.close()
    assert turning.house.ended() is None
    (thread,) = loaders()
    turning.loads.open()
    thread.join()


def test_the_thread_of_a_change_that_is_told_of_has_nothing_left_to_do(
    engine: Turning, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation = engine.house.engine._turnover._preparation
    real, settled = preparation.prepare, threading.Event()

    def prepare_and_dawdle(*given: Any) -> None:
        real(*given)
        settled.set()
        time.sleep(0.3)

    monkeypatch.setattr(preparation, "prepare", prepare_and_dawdle)
    ticket = engine.ask()
    assert settled.wait(HANG_S)
    engine.ask()  # wakes the engine before the thread does
    assert engine.told() == f"{ticket} is done"
    assert engine.told() == f"{ticket + 1} is done"
    assert loaders() == []


def test_an_engine_that_loads_nothing_says_so(engine: Turning) -> None:
    assert not engine.house.engine.is_loading
    engine.made()
    assert not engine.house.engine.is_loading


# A load that does not end


@pytest.fixture
def impatient(engine: Turning) -> Turning:
    """It has given up a load of digits/2, whose thread hangs until `loads` is open."""
    copied(engine.folder, version=2)
    engine.loads.close()
    engine.ask()
    engine.loads.wait_until_begun()
    (thread,) = loaders()
    engine.house.engine._turnover._preparation._load_timeout_s = 0.01
    assert engine.all_told() == [
        "1 LoadStalled: digits/2: it has taken longer than 0.01 s and is waited for no more"
    ]
    engine.house.engine._turnover._preparation._load_timeout_s = 0
    engine.loads.leave(thread)
    return engine


def test_after_a_load_that_was_given_up_the_old_version_answers_and_changes_are_made(
    impatient: Turning, peer: Peer
) -> None:
    before = asked(peer)
    copied(impatient.folder, "other")
    assert impatient.made("other") == ["1 is other/1"]
    assert impatient.made("other", "unload") == ["drop 1"]
    copied(impatient.folder, version=3)
    assert impatient.made() == ["2 is digits/3", "drop 0"]
    np.testing.assert_array_equal(asked(peer), before)


def test_what_it_comes_to_at_last_is_for_nobody(impatient: Turning) -> None:
    assert impatient.house.engine.is_loading
    (thread,) = loaders()
    impatient.loads.open()
    thread.join()
    until(lambda: not impatient.house.engine.is_loading)
    assert list(impatient.house.engine._repertoire.facts) == [0]
    assert impatient.made() == ["1 is digits/2", "drop 0"], "which is loaded anew"


def test_the_same_is_not_loaded_beside_itself_and_is_where_its_files_are_others(impatient: Turning) -> None:
    why = "LoadStalled: digits/2: a load of it that was given up has not ended"
    assert [impatient.refused() for _ in range(2)] == [why, why]
    negated(impatient.folder, 2)
    assert impatient.made() == ["1 is digits/2", "drop 0"]


def test_when_too_many_do_not_end_none_is_begun_until_one_does(engine: Turning) -> None:
    engine.loads.close()
    for turn in range(stalled.AT_MOST):
        copied(engine.folder, f"stuck{turn}")
        engine.ask(f"stuck{turn}")
        engine.loads.wait_until_begun()
        engine.house.engine._turnover._preparation._load_timeout_s = 0.01
        assert "LoadStalled" in engine.all_told()[-1]
        engine.house.engine._turnover._preparation._load_timeout_s = 0
    copied(engine.folder, version=2)
    assert engine.refused().startswith("LoadStalled: digits/2: 4 loads that were given up have not ended")
    assert engine.made("digits", "unload") == ["drop 0"]
    engine.loads.open()
    until(lambda: not engine.house.engine.is_loading)
    assert engine.made() == ["1 is digits/2"]


def test_a_version_that_changes_while_it_is_loaded_is_refused(engine: Turning) -> None:
    version = copied(engine.folder, version=2)
    engine.loads.close()
    ticket = engine.ask()
    engine.loads.wait_until_begun()
    (version / "labels.txt").write_text("".join(f"{digit}\n" for digit in "9876543210"))
    engine.loads.open()
    assert engine.all_told() == [f"{ticket} LoadRefused: digits/2 was changed while it was loaded"]
    assert engine.made() == ["1 is digits/2", "drop 0"]


def test_a_try_that_fails_again_is_no_error_in_the_log(
    engine: Turning, caplog: pytest.LogCaptureFixture
) -> None:
    copied(engine.folder, version=2)
    for why, logged in ((DoesNotFit("too large"), 0), (ModelRefused("it lies"), 1)):
        caplog.clear()
        engine.loads.failure = why
        engine.house.control.send(Message(Kind.ASK, 7, RETRY.packed()))
        assert engine.all_told() == [f"7 LoadRefused: {why}"]
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == logged
