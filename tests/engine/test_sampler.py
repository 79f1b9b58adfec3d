"""The sampler: it looks at a share of the rows, in a share of the time, and fails nobody."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from service.batching.job import Part
from service.engine.loading import load
from service.engine.sampler import Sampler
from service.engine.watching import Wanted, Watching
from service.graph.capture import capture
from service.graph.norm_inputs import norm_inputs
from service.inspection.drift import Drift
from service.inspection.notices import Notices
from service.inspection.watched import Watched as WatchedNorms
from service.inspection.watched import WatchedNorm
from service.inspection.window import ROWS
from service.network.adopt import adopt, norms
from service.plan.observation import Observation
from service.plan.preprocessing import Preprocessing
from service.store.model_store import ModelStore
from service.telemetry import Telemetry
from service.training.split import digits_split
from tests.engine.house import DIGITS, SHIPPED, House
from tests.engine.peer import random_pixels, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.engine.loading import Loaded

PIXELS = digits_split().held_out_pixels.numpy()
ANSWERS = np.eye(10)[digits_split().held_out_labels.numpy()]


class Watched:
    """A sampler that looks at the shipped model, with all the time in the world."""

    def __init__(self, folder: Path, watching: Watching, share: float = 0.5) -> None:
        self.notices = Notices(folder)
        self.telemetry = Telemetry()
        self.sampler = Sampler(share, self.notices, self.telemetry)
        self.sampler.begin(0, DIGITS, watching)
        self.answered = 0

    def answer(self, pixels: np.ndarray, answers: np.ndarray, clients: int = 10**9) -> None:
        """One row at a time, and look at it where it was drawn, with time for that."""
        for row, answer in zip(pixels, answers, strict=True):
            self.answered += 1
            job: Any = SimpleNamespace(client=self.answered % clients)
            self.sampler.see(0, row[None], answer[None], [Part(job, 0, 1)])
            self.work()

    def work(self) -> None:
        for budget in self.sampler._budgets.values():
            budget._saved = 1.0
        while self.sampler.work(busy=False):
            pass

    def draw_all(self) -> None:
        """Let every row be drawn, and wait for the next piece of work however slow this machine is."""
        self.sampler._observers[0].draw._share = 1e9
        self.sampler._observers[0].draw._most = 8

    def counted(self, name: str) -> float:
        return self.telemetry.registry.get_sample_value(name, {"model": "digits", "version": "1"}) or 0.0


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    torch.set_num_threads(1)
    stored = ModelStore(SHIPPED).open("digits")
    return load(stored, torch.device("cpu"), watch=Wanted("all", 0.05))


@pytest.fixture
def watched(tmp_path: Path, loaded: Loaded) -> Iterator[Watched]:
    assert loaded.watching is not None
    loaded.watching.drift.__init__("digits", 1, loaded.watching.drift._watched, None, 0.05)  # type: ignore[misc]
    yield Watched(tmp_path, loaded.watching)
    loaded.watching.observation.forget()


def test_a_model_that_is_watched_says_what_memory_that_takes(loaded: Loaded) -> None:
    tensors = (
        32 * 9 + 32 * 32 * 9 + 64 * 32 * 9 + 64 * 64 * 9 + 64 * 256
    )  # the weights of all norms' producers
    norms = 4 * (32 + 32 + 64 + 64)  # the last norm's own are not read
    assert loaded.card.facts.memory["drift"] == 4 * (tensors + norms)


def test_a_version_begins_as_warming(watched: Watched) -> None:
    report = watched.notices.read("digits", 1)
    assert report is not None
    assert (report.state, report.windows, report.reference) == ("warming", 0, "frozen")


def test_windows_are_judged_as_rows_come(watched: Watched) -> None:
    watched.draw_all()
    watched.answer(PIXELS[:300], ANSWERS[:300])
    report = watched.notices.read("digits", 1)
    assert report is not None
    assert (report.state, report.windows) == ("warming", 2), "three windows decide"
    assert report.n >= 100
    assert report.training_scores is not None
    assert 0.12 < report.training_scores.input < 0.20


def test_one_client_fills_a_quarter_of_a_window(watched: Watched) -> None:
    watched.draw_all()
    watched.answer(PIXELS[:ROWS], ANSWERS[:ROWS], clients=1)
    assert watched.sampler._observers[0].drift.window.rows == ROWS // 4


def test_the_same_row_counts_once(watched: Watched) -> None:
    watched.draw_all()
    watched.answer(np.repeat(PIXELS[:4], 20, 0), np.repeat(ANSWERS[:4], 20, 0))
    assert watched.sampler._observers[0].drift.window.rows == 4


def test_rows_as_numbers_and_as_pixels_are_both_looked_at(watched: Watched) -> None:
    watched.draw_all()
    floats = ((PIXELS[:8] / 255 - 0.3) / 0.3).astype(np.float32)
    job: Any = SimpleNamespace(client=1)
    for rows in (PIXELS[:4], floats[4:]):
        watched.sampler.see(0, rows[:1], ANSWERS[:1], [Part(job, 0, 1)])
    watched.work()
    assert watched.sampler._observers[0].drift.window.rows == 2


def test_a_row_is_a_copy_since_its_memory_is_soon_somebody_elses(watched: Watched) -> None:
    watched.draw_all()
    job: Any = SimpleNamespace(client=1)
    rows = PIXELS[:1].copy()
    watched.sampler.see(0, rows, ANSWERS[:1], [Part(job, 0, 1)])
    rows[:] = 0
    (waiting,) = watched.sampler._observers[0].draw.waiting
    np.testing.assert_array_equal(waiting.row, PIXELS[:1])


def test_every_row_has_the_same_chance(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever batch it is in, and wherever in it."""
    draw = watched.sampler._observers[0].draw
    drawn = np.zeros(16)
    random = np.random.default_rng(0)

    def drawing(row: np.ndarray, _answer: np.ndarray, _client: int) -> None:
        drawn[int(row[0, 0, 0, 0])] += 1

    monkeypatch.setattr(draw, "_draw", drawing)
    monkeypatch.setattr(draw, "_gap", lambda: int(random.geometric(0.1)) - 1)
    rows = np.zeros((16, 1, 8, 8), np.uint8)
    rows[:, 0, 0, 0] = np.arange(16)
    for start in range(4000):
        first = start % 3
        for part in (rows[:first], rows[first : first + 5], rows[first + 5 :]):
            draw.see(part, np.zeros((len(part), 10)), [])
    expected = 4000 * 0.1
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected)


def test_a_flood_of_rows_is_thinned_to_its_share_of_the_time(watched: Watched) -> None:
    draw = watched.sampler._observers[0].draw
    draw._share, draw.row_s = 0.01, 0.001
    draw._rate._rows, draw._rate._since = 30_000.0, time.monotonic() - 3600  # 1,000 a second
    gaps = [draw._gap() for _ in range(3000)]
    assert np.mean(gaps) == pytest.approx(99, rel=0.1)


def test_a_norm_that_reads_the_input_is_looked_at_without_a_call(tmp_path: Path) -> None:
    network = adopt(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10)).eval())
    captured, (norm,) = capture(network, torch.rand(2, 3, 8, 8)), norms(network).values()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    vectors = norm.running_mean.numpy(), norm.running_var.numpy(), np.ones(3)
    frozen = WatchedNorms((WatchedNorm("0", "input", *vectors, norm.eps, 608.0),))
    reads = list(norm_inputs(captured, norms(network)).values())
    observation = Observation(captured.module, reads, Preprocessing([0.5], [0.5]), torch.device("cpu"))
    probe, drift = np.zeros((1, 3, 8, 8), np.uint8), Drift("digits", 1, frozen, None, 0.05)
    watched = Watched(tmp_path, Watching(observation, frozen, None, drift, probe))
    watched.draw_all()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8)).astype(np.uint8)
    watched.answer(pixels, ANSWERS[:4])
    assert drift.window.rows == 4


def test_after_a_flood_rows_are_drawn_with_the_chance_of_now(watched: Watched) -> None:
    """Not with that of the flood, which would leave out thousands of rows of a quiet hour."""
    draw = watched.sampler._observers[0].draw
    draw._share, draw.row_s = 0.01, 0.001
    rate: Any = SimpleNamespace(count=lambda _rows: None, per_second=1e7)
    draw._rate = rate
    job: Any = SimpleNamespace(client=1)
    draw.see(PIXELS[:32], ANSWERS[:32], [Part(job, 0, 32)])
    drawn, rate.per_second = draw._drawn, 1.0
    for _ in range(8):
        draw.see(PIXELS[:1], ANSWERS[:1], [Part(job, 0, 1)])
    assert draw._drawn == drawn + 8


def test_without_time_nothing_is_done_and_little_is_kept(watched: Watched) -> None:
    watched.draw_all()
    for budget in watched.sampler._budgets.values():
        budget._saved = -1e9
    job: Any = SimpleNamespace(client=1)
    watched.sampler.see(0, PIXELS, ANSWERS, [Part(job, 0, len(PIXELS))])
    assert not watched.sampler.work(busy=False)
    waiting = watched.sampler._observers[0].draw.waiting
    assert 1 <= len(waiting) <= 8
    assert any(not np.array_equal(one.row, PIXELS[n : n + 1]) for n, one in enumerate(waiting))


def test_while_rows_wait_a_tenth_is_done_all_the_same(watched: Watched) -> None:
    idle, busy = (watched.sampler._budgets[is_busy].share for is_busy in (False, True))
    assert busy == idle / 10
    watched.draw_all()
    job: Any = SimpleNamespace(client=1)
    watched.sampler.see(0, PIXELS[:1], ANSWERS[:1], [Part(job, 0, 1)])
    for budget in watched.sampler._budgets.values():
        budget._saved = 1.0
    while watched.sampler.work(busy=True):
        pass
    assert watched.sampler._observers[0].drift.window.rows == 1


def test_of_one_client_no_more_rows_can_be_accepted_than_its_windows_admitted(watched: Watched) -> None:
    watched.draw_all()
    watched.answer(PIXELS[:ROWS], ANSWERS[:ROWS], clients=1)
    found = watched.sampler.recent(0)
    assert found is not None
    assert len(found.rows) == ROWS // 4


def test_with_accepted_rows_as_its_baseline_rows_like_them_are_ok_from_an_empty_window_on(
    watched: Watched,
) -> None:
    watched.draw_all()
    for _ in range(2):
        watched.answer(PIXELS, ANSWERS)
    observer = watched.sampler._observers[0]
    assert observer.drift.report.state == "unlike training"
    found = watched.sampler.recent(0)
    assert found is not None
    watched.sampler.see(0, PIXELS[:1], ANSWERS[:1], [Part(SimpleNamespace(client=1), 0, 1)])  # type: ignore[arg-type]
    watched.sampler.accept(0, found.baseline(10))
    assert not observer.has_work, "it was of the time before"
    report = watched.notices.read("digits", 1)
    assert report is not None
    assert (report.state, report.reference, report.windows) == ("warming", "baseline", 0)
    assert report.baseline_rows == len(found.rows)
    watched.answer(PIXELS, ANSWERS)
    report = observer.drift.report
    assert report.state == "ok"
    assert report.windows >= 3
    assert report.scores is not None
    assert report.scores.input < 0.05
    watched.sampler.accept(7, found.baseline(10))
    assert watched.sampler.recent(7) is None


def test_a_failure_is_logged_and_counted_and_the_next_row_is_looked_at(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.draw_all()
    observation = watched.sampler._observers[0]._observation
    with monkeypatch.context() as broken:
        broken.setattr(observation, "run", lambda _until: 1 / 0)
        watched.answer(PIXELS[:1], ANSWERS[:1])
    assert "digits/1: looking at live rows failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert watched.counted("foldserve_drift_failures_total") == 1
    watched.answer(PIXELS[1:3], ANSWERS[1:3])
    assert watched.sampler._observers[0].drift.window.rows == 2


def test_a_version_that_fails_three_times_in_a_row_is_looked_at_no_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.draw_all()
    observation = watched.sampler._observers[0]._observation
    monkeypatch.setattr(observation, "begin", lambda _rows: 1 / 0)
    watched.answer(PIXELS[:5], ANSWERS[:5])
    assert watched.counted("foldserve_drift_failures_total") == 3
    report = watched.notices.read("digits", 1)
    assert report is not None
    assert report.state == "failed"


def test_notices_that_cannot_be_written_end_nothing(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched.draw_all()
    tmp_path.joinpath(".fresh-drift").mkdir()
    for _ in range(2):
        watched.answer(PIXELS[:300], ANSWERS[:300])
    assert "IsADirectoryError" in caplog.text
    assert watched.counted("foldserve_drift_failures_total") >= 1
    watched.sampler.end(0)


def test_a_version_that_is_unloaded_is_forgotten(watched: Watched) -> None:
    watched.sampler.end(0)
    assert watched.notices.read("digits", 1) is None
    watched.answer(PIXELS[:3], ANSWERS[:3])
    watched.sampler.end(7)


def test_a_version_that_is_loaded_anew_is_looked_at_from_the_beginning(
    watched: Watched, loaded: Loaded
) -> None:
    watched.draw_all()
    watched.answer(PIXELS[:5], ANSWERS[:5])
    assert loaded.watching is not None
    watched.sampler.begin(1, DIGITS, loaded.watching)
    watched.sampler.end(0)
    assert list(watched.sampler._observers) == [1]
    assert watched.notices.read("digits", 1) is not None, "it is said of the new one"
    watched.sampler.end(1)
    assert watched.notices.read("digits", 1) is None


def test_a_first_window_above_the_threshold_is_not_said_to_be_of_other_content(watched: Watched) -> None:
    watched.draw_all()
    drift = watched.sampler._observers[0].drift
    for at in range(0, len(PIXELS), 16):
        watched.answer(PIXELS[at : at + 16], ANSWERS[at : at + 16])
        if drift.report.windows:
            break
    report = drift.report
    assert (report.state, report.contrary) == ("warming", 1)
    assert report.scores is not None
    assert report.thresholds is not None
    assert report.scores.input is not None
    assert report.thresholds.input is not None
    assert report.scores.input > report.thresholds.input
    assert "last norms" not in report.meaning


def test_a_change_of_state_is_one_line_in_the_log(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watched.draw_all()
    for _ in range(2):
        watched.answer(PIXELS, ANSWERS)
    lines = [record.getMessage() for record in caplog.records if "drift state" in record.getMessage()]
    (line,) = lines
    assert line.startswith("digits/1: drift state unlike training, was warming: input 0.1")


# In the engine


def test_an_engine_looks_at_what_it_answers_and_answers_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = Notices(tmp_path)
    house = House(notices=notices, models="digits", drift_share=0.5).start()
    observer = house.engine._sampler._observers[0]
    peer = house.peer()
    for seed in range(5):
        peer.answer(peer.ring(random_pixels(3, seed)))
    until(lambda: observer.drift.window.rows >= 1)
    monkeypatch.setattr(observer.draw, "see", lambda *_: 1 / 0)
    monkeypatch.setattr(observer, "work", lambda *_: 1 / 0)
    for seed in range(5):
        outputs, reply = peer.answer(peer.ring(random_pixels(3, seed)))
        assert reply.batch_rows == 3
        assert np.isfinite(outputs).all()
    peer.close()
    assert house.stop() is None


def test_an_engine_with_drift_off_keeps_nothing(tmp_path: Path) -> None:
    house = House(notices=Notices(tmp_path), models="digits", drift="off")
    house.engine._load_models()
    assert "drift" not in house.engine._repertoire.facts[0].memory
    assert house.engine._sampler._observers == {}
    report = Notices(tmp_path).read("digits", 1)
    assert report is not None
    assert report.state == "off"
    house.discard()


def test_where_only_the_first_norms_are_watched_there_is_no_content(tmp_path: Path, loaded: Loaded) -> None:
    stored = ModelStore(SHIPPED).open("digits")
    first = load(stored, torch.device("cpu"), watch=Wanted("input", 0.05))
    assert first.watching is not None
    assert first.card.facts.memory["drift"] < 0.2 * loaded.card.facts.memory["drift"]
    looked = Watched(tmp_path, first.watching)
    looked.draw_all()
    looked.answer(PIXELS[:200], ANSWERS[:200])
    report = looked.notices.read("digits", 1)
    assert report is not None
    assert report.scores is not None
    assert [layer.name for layer in report.layers] == ["bn1", "bn2"]
    assert report.scores.content is None
