"""The examiner: whoever asks for moments gets them, a little at a time; nobody who predicts waits for it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from service.batching.job import Lane
from service.batching.policy import Limits
from service.batching.queue import Queue
from service.engine import examiner as examiners
from service.engine import unfolded
from service.engine.control import Kind
from service.engine.doorbell import Outcome
from service.engine.examiner import Examiner
from service.engine.linked_job import LinkedJob
from service.engine.loading import load
from service.engine.stopwatch import Stopwatch
from service.engine.watching import Wanted
from service.inspection.notices import Notices
from service.network.adopt import norms
from service.store.model_store import ModelStore
from service.telemetry import Telemetry
from service.training.split import digits_split
from tests.engine.house import DIGITS, SHIPPED, House, Plan
from tests.engine.peer import HANG_S, Laid, Peer, random_pixels, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.engine.watching import Watching

PIXELS = digits_split().held_out_pixels.numpy()
WATCHED = ("bn1", "bn2", "bn4", "bn5")
CHANNELS = 32 + 32 + 64 + 64


def seen_by_torch(pixels: np.ndarray) -> np.ndarray:
    """The moments `[N, 2, C]` as the network itself has them, in float64, by hooks on its norms."""
    network = unfolded.built(ModelStore(SHIPPED).open("digits"), Stopwatch()).double().eval()
    given = ModelStore(SHIPPED).open("digits").manifest.input
    found: dict[str, torch.Tensor] = {}
    for name, norm in norms(network).items():
        norm.register_forward_pre_hook(lambda _, args, name=name: found.update({name: args[0]}))
    inputs = (torch.from_numpy(pixels).double() / 255 - given.mean[0]) / given.std[0]
    with torch.inference_mode():
        network(inputs)
    flat = [found[name].reshape(len(pixels), found[name].shape[1], -1) for name in WATCHED]
    mean, var = torch.cat([x.mean(2) for x in flat], 1), torch.cat([x.var(2, correction=0) for x in flat], 1)
    return torch.stack([mean, var], 1).numpy()


# In pieces


@pytest.fixture(scope="module")
def watching() -> Watching:
    torch.set_num_threads(1)
    loaded = load(ModelStore(SHIPPED).open("digits"), torch.device("cpu"), watch=Wanted("all", 0.005))
    assert loaded.watching is not None
    return loaded.watching


class Asked:
    """An examiner of the shipped model, asked by hand; every piece is one call of the graph."""

    def __init__(self, watching: Watching) -> None:
        self.queue: Queue[LinkedJob] = Queue(Limits(1000))
        self.replies: list[tuple[LinkedJob, Outcome]] = []
        self.telemetry = Telemetry()
        self.examiner = Examiner(self.queue, lambda *reply: self.replies.append(reply), self.telemetry)
        self.queue.admit(0, 64)
        self.examiner.begin(0, DIGITS, watching)

    def ask(self, rows: np.ndarray, *, patience_s: float = HANG_S, age_s: float = 0.0) -> LinkedJob:
        now: float = time.monotonic()
        lane, link = Lane(0, rows.dtype.name, "moments"), Any
        job = LinkedJob(
            lane=lane,
            rows=len(rows),
            arrived=now - age_s,
            deadline=now + patience_s,
            link=link,  # type: ignore[arg-type]  # nothing here looks at it
            ticket=0,
            inputs=rows,
            outputs=np.full((len(rows), 2, CHANNELS), np.nan, np.float32),
        )
        self.queue.submit(job)
        return job

    def finish(self) -> int:
        """Work until nothing is left; how many pieces that took."""
        pieces = 0
        while self.examiner.work():
            pieces += 1
        return pieces


@pytest.fixture
def asked(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(examiners, "_PIECE_S", 0.0)
    return Asked(watching)


def test_a_job_gets_the_moments_of_its_rows(asked: Asked) -> None:
    job = asked.ask(PIXELS[:3])
    pieces = asked.finish()
    assert asked.replies == [(job, Outcome.ANSWERED)]
    np.testing.assert_allclose(job.outputs, seen_by_torch(PIXELS[:3]), rtol=1e-4, atol=1e-5)
    assert pieces >= 3 * 5, "a call at a time"
    assert (job.answered, job.batch_rows) == (3, 3)
    assert job.compute_s > 0
    spent = asked.telemetry.registry.get_sample_value(
        "foldserve_examination_seconds_total", {"model": "digits", "version": "1"}
    )
    assert spent == pytest.approx(job.compute_s)


def test_rows_as_numbers_have_the_moments_of_the_pixels_they_stand_for(asked: Asked) -> None:
    given = ModelStore(SHIPPED).open("digits").manifest.input
    floats = ((PIXELS[:2] / 255 - given.mean[0]) / given.std[0]).astype(np.float32)
    job = asked.ask(floats)
    asked.finish()
    np.testing.assert_allclose(job.outputs, seen_by_torch(PIXELS[:2]), rtol=1e-4, atol=1e-5)


def test_whoever_asked_first_is_answered_first(asked: Asked) -> None:
    young, old = asked.ask(PIXELS[:1]), asked.ask(PIXELS[1:4], age_s=1.0)
    asked.finish()
    assert [job for job, _ in asked.replies] == [old, young]
    assert old.queue_s >= 1.0


def test_live_rows_that_are_under_way_are_not_disturbed(asked: Asked, watching: Watching) -> None:
    """Both run through the same network, and each has rows of its own."""
    observation = watching.observation
    observation.begin(PIXELS[9:10])
    observation.run(0.0)
    job = asked.ask(PIXELS[:1])
    for _ in range(3):
        asked.examiner.work()
    while observation.is_running:
        observation.run(0.0)
    found = np.stack(observation.finished(), 1)
    asked.finish()
    np.testing.assert_allclose(found, seen_by_torch(PIXELS[9:10]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(job.outputs, seen_by_torch(PIXELS[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pieces", [0, 1, 4])
def test_a_job_that_is_cancelled_is_computed_no_further_and_writes_nowhere(asked: Asked, pieces: int) -> None:
    job, other = asked.ask(PIXELS[:2]), asked.ask(PIXELS[4:5])
    for _ in range(pieces):
        asked.examiner.work()
    asked.queue.withdraw(job)  # as the switchboard does, which replies itself
    asked.finish()
    assert np.isnan(job.outputs).all(), "its memory may be somebody else's by now"
    assert (other, Outcome.ANSWERED) in asked.replies
    assert (job, Outcome.ANSWERED) not in asked.replies
    np.testing.assert_allclose(other.outputs, seen_by_torch(PIXELS[4:5]), rtol=1e-4, atol=1e-5)
    assert asked.queue.waiting_rows == 0


@pytest.mark.parametrize("pieces", [0, 4])
def test_a_job_whose_time_is_over_is_told_so_and_computed_no_further(asked: Asked, pieces: int) -> None:
    job = asked.ask(PIXELS[:2])
    for _ in range(pieces):
        asked.examiner.work()
    job.deadline = time.monotonic()
    asked.finish()
    assert asked.replies == [(job, Outcome.LATE)]
    assert asked.examiner._observations[0]._values == {}
    assert np.isnan(job.outputs).all()
    assert asked.queue.waiting_rows == 0


def test_a_job_that_fails_fails_alone(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    observation = asked.examiner._observations[0]
    wrong, right = asked.ask(np.zeros((2, 3, 8, 8), np.uint8), age_s=1.0), asked.ask(PIXELS[:1])
    with caplog.at_level(logging.ERROR, "foldserve.engine"):
        asked.finish()
    assert asked.replies == [(wrong, Outcome.FAILED), (right, Outcome.ANSWERED)]
    assert "digits/1: rows that were asked about failed" in caplog.text
    assert not observation.is_running


def test_nothing_is_left_of_a_row(asked: Asked) -> None:
    asked.ask(PIXELS[:1])
    asked.finish()
    observation = asked.examiner._observations[0]
    assert (observation._values, observation._seen, asked.examiner._row) == ({}, [], None)


def test_while_rows_wait_for_answers_it_works_only_as_far_as_a_tenth_of_the_time_goes(asked: Asked) -> None:
    budget, job = asked.examiner._budget, asked.ask(PIXELS[:1])
    assert budget.share == 0.1
    budget._saved = -HANG_S  # owed
    assert not asked.examiner.work(busy_s=0.001)
    assert asked.queue.waiting_rows == 1
    budget._saved = 0.01
    while asked.examiner.work(busy_s=0.001):
        pass
    assert budget._saved <= 0 or asked.replies, "it stops where nothing is left, or all is done"
    budget._saved = -HANG_S
    asked.finish()  # with nobody waiting it owes nothing
    assert asked.replies == [(job, Outcome.ANSWERED)]
    assert budget._saved < -HANG_S / 2


def test_what_is_retired_is_forgotten_with_the_row_that_was_under_way(asked: Asked) -> None:
    asked.ask(PIXELS[:2])
    for _ in range(3):
        asked.examiner.work()
    asked.queue.dismiss(0)
    asked.examiner.end(0)
    assert not asked.examiner.work()
    assert (asked.examiner._observations, asked.replies) == ({}, [])


# In an engine that serves


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(models="digits", notices=Notices(tmp_path_factory.mktemp("notices"))).start()
    yield made
    assert made.stop() is None


@pytest.fixture
def peer(house: House) -> Iterator[Peer]:
    made = house.peer()
    until(lambda: len(house.engine._switchboard._jobs) == 1)
    yield made
    made.close()
    until(lambda: not house.engine._switchboard._jobs)
    assert house.engine._queue.waiting_rows == 0


def look(peer: Peer, rows: np.ndarray, **more: Any) -> int:
    """Ask for moments; the ticket."""
    behind, needed = -(-rows.nbytes // 4096), -(-len(rows) * 8 * CHANNELS // 4096)
    first = peer._slots.take(behind + needed)
    assert first is not None
    ring = peer.lay(rows, **more)._replace(wanted="moments", first_slot=first)
    peer.arena.array(first, rows.shape, rows.dtype)[:] = rows
    outputs = peer.arena.array(first + behind, [len(rows), 2, CHANNELS], "float32")
    peer.laid[ring.ticket] = Laid(ring, rows, outputs)
    peer.say(ring)
    return ring.ticket


def test_a_worker_gets_moments_over_its_link(house: House, peer: Peer) -> None:
    outputs, reply = peer.answer(look(peer, PIXELS[:4]))
    np.testing.assert_allclose(outputs, seen_by_torch(PIXELS[:4]), rtol=1e-4, atol=1e-5)
    assert reply.batch_rows == 4
    (card, _) = house.said
    assert card.kind is Kind.CARD


def test_they_are_in_no_window_and_in_no_batch(house: House, peer: Peer) -> None:
    def batches() -> float | None:
        return house.telemetry.registry.get_sample_value(
            "foldserve_batch_rows_count", {"model": "digits", "version": "1"}
        )

    observer, before = house.engine._sampler._observers[0], batches()
    drawn = observer.draw._rate._rows
    for ticket in [look(peer, PIXELS[number : number + 1]) for number in range(8)]:
        peer.answer(ticket)
    assert (batches(), observer.draw._rate._rows, observer.drift.window.rows) == (before, drawn, 0)


def test_answers_go_first(house: House, peer: Peer) -> None:
    real = house.engine._repertoire._plans[0]
    plan = Plan(real)
    house.engine._repertoire._plans[0] = plan  # type: ignore[assignment]  # what the engine needs of it
    blocker = peer.ring(random_pixels(1))
    plan.wait_until_entered()
    asked = look(peer, PIXELS[:1], age_s=5.0)
    predicted = [peer.ring(random_pixels(1, seed)) for seed in range(3)]
    plan.go.set()
    house.engine._repertoire._plans[0] = real
    assert [peer.reply().ticket for _ in range(5)] == [blocker, *predicted, asked]


def test_who_asks_is_answered_though_the_engine_is_never_idle(house: House, peer: Peer) -> None:
    asked, answered, predicted = look(peer, PIXELS[:2]), False, 0
    tickets = {peer.ring(random_pixels(1, seed)) for seed in range(8)}
    while not answered:
        reply = peer.reply()
        assert reply.outcome is Outcome.ANSWERED
        answered = reply.ticket == asked
        if not answered:
            predicted += 1
            tickets.remove(reply.ticket)
            laid = peer.laid.pop(reply.ticket).ring
            again = laid._replace(ticket=next(peer._tickets), arrived=time.monotonic())
            peer.laid[again.ticket] = Laid(again, np.empty(0), np.empty(0))
            tickets.add(again.ticket)
            peer.say(again)
    while tickets:
        tickets.remove(peer.reply().ticket)


def test_moments_that_are_taken_back_are_cancelled_and_others_come(house: House, peer: Peer) -> None:
    for _ in range(5):
        ticket = look(peer, PIXELS[:8])
        peer.cancel(ticket)
        other = look(peer, PIXELS[9:10])
        first, second = peer.reply(), peer.reply()
        assert [first.ticket, second.ticket] == [ticket, other]
        assert first.outcome in (Outcome.CANCELLED, Outcome.ANSWERED)
        np.testing.assert_allclose(
            peer.laid[other].outputs, seen_by_torch(PIXELS[9:10]), rtol=1e-4, atol=1e-5
        )


def test_a_worker_that_dies_while_it_is_asked_for_leaves_nothing(house: House) -> None:
    dying = house.peer(2)
    until(lambda: len(house.engine._switchboard._jobs) == 1)
    look(dying, PIXELS[:8])
    dying.close()
    until(lambda: not house.engine._switchboard._jobs)
    until(lambda: house.engine._examiner._row is None)
    assert house.engine._queue.waiting_rows == 0
    assert house.failure is None
