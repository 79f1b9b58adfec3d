"""The engine: it loads the store, runs batches, lets a bad job fail alone, and ends as it is told."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from service.engine import card as cards
from service.engine.control import Kind, Message
from service.engine.doorbell import Cancel, Outcome, Ring
from service.errors import FoldserveError, InvalidConfiguration, InvalidWeights, UnknownModel
from tests.engine.house import DIGITS, SHIPPED, House, Plan, let_time_pass
from tests.engine.peer import (
    HANG_S,
    Peer,
    hears,
    is_quiet,
    mapped_arenas,
    open_descriptors,
    random_pixels,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

POISON = np.full((1, 1, 8, 8), Plan.POISON, np.uint8)


@pytest.fixture
def peer(shared: House) -> Iterator[Peer]:
    """A worker with a link to the shared engine; afterwards the engine has nothing left of anybody."""
    made = shared.peer()
    until(lambda: len(shared.engine._switchboard._jobs) == 1)
    yield made
    made.close()
    until(lambda: not shared.engine._switchboard._jobs)
    assert shared.engine._queue.waiting_rows == 0


def expected(plan: Any, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        answer: np.ndarray = plan(torch.from_numpy(pixels)).numpy()
    return answer


def require_close(given: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)


def block(peer: Peer, plan: Plan) -> int:
    """Give the engine something to hang over, so that what is rung now waits together."""
    ticket = peer.ring(random_pixels(1))
    plan.wait_until_entered()
    return ticket


# A life without trouble


def test_models_are_told_of_before_the_engine_is_ready(shared: House) -> None:
    assert repr(shared) == "CARD READY"
    card, ready = shared.said
    assert (card.number, ready.descriptors) == (0, ())
    assert cards.read(card.descriptors[0]).key == DIGITS


def test_a_job_gets_what_the_plan_computes_for_its_rows(shared: House, peer: Peer) -> None:
    pixels = random_pixels(3)
    outputs, reply = peer.answer(peer.ring(pixels))
    require_close(outputs, expected(shared.engine._repertoire._plans[0], pixels))
    assert reply.batch_rows == 3
    assert 0 <= reply.queue_s < HANG_S
    assert 0 < reply.compute_s < HANG_S


def test_to_compute_rows_leaves_them_as_they_are(peer: Peer) -> None:
    for rows in (random_pixels(5), np.linspace(-1, 1, 320, dtype=np.float32).reshape(5, 1, 8, 8)):
        ticket = peer.ring(rows)
        peer.answer(ticket)
        np.testing.assert_array_equal(peer.laid[ticket].inputs, rows)


def test_a_batch_of_many_jobs_of_several_workers_gives_each_its_own_rows(
    shared: House, peer: Peer, plan: Plan
) -> None:
    other = shared.peer(1)
    blocker = block(peer, plan)
    tickets = [(each, n, each.ring(random_pixels(1 + n % 3, n))) for n in range(9) for each in (peer, other)]
    plan.go.set()
    peer.answer(blocker)
    for each, number, ticket in tickets:
        outputs, reply = each.answer(ticket)
        require_close(outputs, expected(plan.real, random_pixels(1 + number % 3, number)))
        assert reply.batch_rows == 36
    assert plan.batches == [1, 36]
    other.close()


def test_pixels_and_network_inputs_that_wait_together_run_apart(peer: Peer, plan: Plan) -> None:
    floats = np.linspace(-1, 1, 192, dtype=np.float32).reshape(3, 1, 8, 8)
    blocker = block(peer, plan)
    tickets = [peer.ring(rows) for rows in (random_pixels(2), floats, random_pixels(1, 1), floats[:1])]
    plan.go.set()
    peer.answer(blocker)
    answers = {reply.ticket: reply for reply in (peer.reply() for _ in tickets)}
    assert [answers[ticket].batch_rows for ticket in tickets] == [3, 4, 3, 4]
    assert plan.batches == [1, 3, 4]
    require_close(peer.laid[tickets[1]].outputs, expected(plan.real, floats))
    require_close(peer.laid[tickets[2]].outputs, expected(plan.real, random_pixels(1, 1)))


def test_a_job_larger_than_a_batch_is_answered_whole_and_in_order(peer: Peer, plan: Plan) -> None:
    plan.go.set()
    pixels = random_pixels(150)
    outputs, reply = peer.answer(peer.ring(pixels))
    require_close(outputs, expected(plan.real, pixels))
    assert plan.batches == [64, 64, 22]
    assert reply.batch_rows == 150
    assert reply.compute_s > 0


def test_others_join_the_last_part_of_a_large_job(peer: Peer, plan: Plan) -> None:
    blocker = block(peer, plan)
    large, small = peer.ring(random_pixels(150)), peer.ring(random_pixels(2, 1))
    plan.go.set()
    peer.answer(blocker)
    require_close(peer.answer(large)[0], expected(plan.real, random_pixels(150)))
    require_close(peer.answer(small)[0], expected(plan.real, random_pixels(2, 1)))
    assert plan.batches == [1, 64, 64, 24]


def test_a_computed_batch_is_counted(shared: House, peer: Peer) -> None:
    def rows() -> float:
        labels = {"model": "digits", "version": "1"}
        return shared.telemetry.registry.get_sample_value("foldserve_rows_total", labels) or 0.0

    before = rows()
    peer.answer(peer.ring(random_pixels(5)))
    until(lambda: rows() - before == 5)  # after the answer has gone


def test_the_board_says_what_runs_and_that_the_engine_lives(shared: House, peer: Peer, plan: Plan) -> None:
    ticket = peer.ring(random_pixels(7))
    plan.wait_until_entered()
    assert shared.board.engine.rows == 7
    before = shared.board.engine.alive_at
    plan.go.set()
    peer.answer(ticket)
    until(lambda: not shared.board.engine.rows)
    until(lambda: shared.board.engine.alive_at > before + 0.5)  # though nothing waits
    assert not shared.board.engine.is_silent(HANG_S)


def test_an_engine_with_nothing_to_do_sleeps_much_shorter_than_it_may_ever_be_silent() -> None:
    idle = House(hang_timeout_s=1.0)
    idle.discard()
    assert 0 < idle.engine._step() <= 0.25
    with pytest.raises(ValueError, match="hang_timeout_s"):
        House(hang_timeout_s=0.9)


def test_after_loading_no_collection_looks_at_what_stays(shared: House) -> None:
    assert gc.get_freeze_count() > 100_000


# Jobs that nobody waits for


def test_a_job_that_is_cancelled_while_it_waits_is_not_computed(peer: Peer, plan: Plan) -> None:
    blocker = block(peer, plan)
    gone, stays = peer.ring(random_pixels(3)), peer.ring(random_pixels(2))
    peer.cancel(gone)
    plan.go.set()
    peer.answer(blocker)
    assert peer.outcome(gone) is Outcome.CANCELLED
    peer.answer(stays)
    assert plan.batches == [1, 2]


def test_a_job_whose_deadline_passes_while_it_waits_is_not_computed(peer: Peer, plan: Plan) -> None:
    blocker = block(peer, plan)
    late, stays = peer.lay(random_pixels(3), patience_s=0.05), peer.lay(random_pixels(2))
    peer.say(late, stays)
    let_time_pass(late.deadline)
    plan.go.set()
    peer.answer(blocker)
    assert peer.outcome(late.ticket) is Outcome.LATE
    peer.answer(stays.ticket)
    assert plan.batches == [1, 2]


def test_a_large_job_that_is_cancelled_between_its_parts_is_computed_no_further(
    peer: Peer, plan: Plan
) -> None:
    large = block_with(peer, plan, random_pixels(150))
    peer.cancel(large)
    small = peer.ring(random_pixels(2))
    plan.go.set()
    assert peer.outcome(large) is Outcome.CANCELLED
    peer.answer(small)
    assert plan.batches == [64, 2]


def block_with(peer: Peer, plan: Plan, pixels: np.ndarray) -> int:
    ticket = peer.ring(pixels)
    plan.wait_until_entered()
    return ticket


def test_a_large_job_whose_deadline_passes_between_its_parts_is_computed_no_further(
    peer: Peer, plan: Plan
) -> None:
    large = peer.lay(random_pixels(150), patience_s=2.0)
    peer.say(large)
    plan.wait_until_entered()
    let_time_pass(large.deadline)
    plan.go.set()
    assert peer.outcome(large.ticket) is Outcome.LATE
    peer.answer(peer.ring(random_pixels(2)))
    assert plan.batches == [64, 2]


def test_a_large_job_of_a_worker_that_dies_between_its_parts_is_computed_no_further(
    shared: House, peer: Peer, plan: Plan
) -> None:
    gc.collect()
    arenas, descriptors = mapped_arenas(), open_descriptors()
    dies = shared.peer(1)
    dies.ring(random_pixels(150))
    plan.wait_until_entered()
    dies.close()
    dies.laid.clear()
    del dies.arena
    plan.go.set()
    peer.answer(peer.ring(random_pixels(2)))
    assert plan.batches == [64, 2]
    until(lambda: (mapped_arenas(), open_descriptors()) == (arenas, descriptors))


def test_jobs_of_a_worker_that_died_are_dropped_and_its_memory_goes(
    shared: House, peer: Peer, plan: Plan
) -> None:
    gc.collect()
    arenas, descriptors = mapped_arenas(), open_descriptors()
    blocker = block(peer, plan)
    dies = shared.peer(1)
    for seed in range(5):
        dies.ring(random_pixels(4, seed))
    dies.close()
    dies.laid.clear()
    del dies.arena
    plan.go.set()
    peer.answer(blocker)
    peer.answer(peer.ring(random_pixels(2)))
    until(lambda: (mapped_arenas(), open_descriptors()) == (arenas, descriptors))
    assert sum(plan.batches) in {3, 23}, "dropped, or computed before the end was seen"


# Poison


def test_a_poisoned_job_fails_alone(peer: Peer, plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    blocker = block(peer, plan)
    first = peer.ring(random_pixels(2, 0))
    bad = peer.ring(POISON)
    good = [first, *(peer.ring(random_pixels(2, seed)) for seed in (1, 2))]
    plan.go.set()
    peer.answer(blocker)
    replies = {reply.ticket: reply for reply in (peer.reply() for _ in range(4))}
    assert replies[bad].outcome is Outcome.FAILED
    for seed, ticket in enumerate(good):
        assert (replies[ticket].outcome, replies[ticket].batch_rows) == (Outcome.ANSWERED, 2)
        require_close(peer.laid[ticket].outputs, expected(plan.real, random_pixels(2, seed)))
    assert plan.batches == [1, 7, 2, 1, 1, 2, 2], (
        "together, then each alone; one row tells that the device is well"
    )
    assert peer.is_silent()
    assert "the device fell over" in caplog.text


def test_twelve_good_jobs_and_a_bad_one_many_times_lose_no_good_one(
    shared: House, peer: Peer, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    plan.go.set()
    for turn in range(20):
        rows = [random_pixels(1, seed) for seed in range(12)]
        rows.insert(turn % 13, POISON)
        laid = [peer.lay(each) for each in rows]
        peer.say(*laid)
        outcomes = {reply.ticket: reply.outcome for reply in (peer.reply() for _ in rows)}
        assert [outcomes[ring.ticket] for ring in laid].index(Outcome.FAILED) == turn % 13
        assert list(outcomes.values()).count(Outcome.ANSWERED) == 12
        peer._slots.give(0, peer._slots.taken)
        peer.laid.clear()


def test_a_large_job_with_poison_in_a_later_part_fails_as_a_whole_and_alone(peer: Peer, plan: Plan) -> None:
    pixels = random_pixels(150)
    pixels[140] = Plan.POISON
    blocker = block(peer, plan)
    large, small = peer.ring(pixels), peer.ring(random_pixels(2))
    plan.go.set()
    peer.answer(blocker)
    assert peer.outcome(large) is Outcome.FAILED
    peer.answer(small)
    assert plan.batches == [1, 64, 64, 24, 22, 1, 2]


def test_a_large_job_with_poison_in_its_first_part_is_computed_no_further(peer: Peer, plan: Plan) -> None:
    pixels = random_pixels(150)
    pixels[0] = Plan.POISON
    plan.go.set()
    assert peer.outcome(peer.ring(pixels)) is Outcome.FAILED
    peer.answer(peer.ring(random_pixels(2)))
    assert plan.batches == [64, 1, 2]


def test_an_engine_goes_on_after_a_failed_batch(peer: Peer, plan: Plan) -> None:
    plan.go.set()
    for _ in range(3):
        assert peer.outcome(peer.ring(POISON)) is Outcome.FAILED
        peer.answer(peer.ring(random_pixels(1)))


def test_a_job_whose_deadline_passed_while_its_batch_failed_is_not_computed_again(
    peer: Peer, plan: Plan
) -> None:
    blocker = block(peer, plan)
    late, stays = peer.lay(random_pixels(3), patience_s=2.0), peer.lay(random_pixels(1))
    peer.say(late, stays)

    def fail_late(rows: Tensor) -> Tensor:
        if len(rows) == 4:
            let_time_pass(late.deadline)
            raise RuntimeError("the device fell over")
        return real(rows)

    real, plan.real = plan.real, fail_late
    plan.go.set()
    peer.answer(blocker)
    assert peer.outcome(late.ticket) is Outcome.LATE
    peer.answer(stays.ticket)
    assert plan.batches == [1, 4, 1], "the blocker, both together, the one that still waits"


def test_where_rows_that_are_surely_good_fail_too_the_engine_ends_with_that() -> None:
    house = House(models="digits").start()
    real = house.engine._repertoire._plans[0]

    def broken(rows: Tensor) -> Tensor:
        raise RuntimeError(f"no device for {len(rows)} rows")

    house.engine._repertoire._plans[0] = broken  # type: ignore[assignment]
    peer = house.peer()
    peer.ring(random_pixels(2))
    assert repr(house.ended()) == "RuntimeError('no device for 1 rows')"
    assert real is not None
    peer.close()


# Workers that lie (what else they may say: test_switchboard.py)

LIE = Ring(1 << 40, 0, 0, 0, 2**32 - 1, 0.0, 1e18)


@pytest.mark.parametrize("said", [LIE.packed(), b"\0" * 48, b"GET / HTTP/1.1\r\n" * 5], ids=str)
def test_a_worker_that_breaks_the_protocol_is_dismissed_and_the_others_are_answered(
    shared: House, peer: Peer, plan: Plan, said: bytes
) -> None:
    blocker = block(peer, plan)
    bad = shared.peer(2)
    bad.ring(random_pixels(30))
    bad.say(said)
    tickets = [peer.ring(random_pixels(3, seed)) for seed in range(3)]
    plan.go.set()
    peer.answer(blocker)
    for seed, ticket in enumerate(tickets):
        require_close(peer.answer(ticket)[0], expected(plan.real, random_pixels(3, seed)))
    assert hears(shared.control) == Message(Kind.DISMISSED, 2)
    assert bad.is_hung_up_on()
    assert plan.batches == [1, 9]
    assert is_quiet(shared.control)
    bad.close()


def test_a_worker_that_changes_its_rows_while_they_run_harms_itself_alone(peer: Peer, plan: Plan) -> None:
    ticket = peer.ring(random_pixels(2))
    plan.wait_until_entered()
    peer.laid[ticket].inputs[:] = 255
    plan.go.set()
    peer.answer(ticket)
    peer.answer(peer.ring(random_pixels(2)))


def test_a_worker_that_reads_nothing_holds_nobody_up(shared: House, peer: Peer) -> None:
    deaf = shared.peer(3, slots=2048, buffer=4096)
    laid = [deaf.lay(random_pixels(1, seed)) for seed in range(600)]
    deaf.say(*laid)
    for seed in range(10):
        peer.answer(peer.ring(random_pixels(2, seed)))
    for ring in laid:
        deaf.answer(ring.ticket)
    assert deaf.is_silent()
    deaf.close()


def test_memory_is_flat_over_thousands_of_jobs_and_lies(
    shared: House, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # what is captured is kept, and keeps what it tells of

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def many() -> None:
        for _ in range(100):
            bad = shared.peer(2, slots=64)
            bad.say(*(bad.lay(random_pixels(1)) for _ in range(16)), Cancel(3), LIE)
            assert hears(shared.control) == Message(Kind.DISMISSED, 2)
            bad.close()
            laid = [peer.lay(random_pixels(1)) for _ in range(20)]
            peer.say(*laid)
            for ring in laid:
                peer.answer(ring.ticket)
            peer.laid.clear()
            peer._slots.give(0, peer._slots.taken)

    def grown() -> int:
        before = resident()
        many()
        gc.collect()
        return resident() - before

    grown()
    assert min(grown() for _ in range(3)) < 8 << 20, "a leak grows every time"


# Endings


def test_told_to_drain_it_answers_what_waits_and_ends_without_a_failure() -> None:
    house = House(models="digits", max_delay_ms=10_000).start()
    peer = house.peer()
    laid = [peer.lay(random_pixels(40, seed)) for seed in range(5)]
    peer.say(*laid)
    house.drain()
    for ring in laid:
        peer.answer(ring.ticket)
    late = random_pixels(1)
    peer.answer(peer.ring(late))  # of a body that was on its way
    peer.close()
    assert house.ended() is None


def test_an_engine_whose_supervisor_is_gone_ends() -> None:
    house = House(models="digits").start()
    house.control.close()
    assert house.ended() is None


def damaged(folder: Path) -> Path:
    shutil.copytree(SHIPPED / "digits", folder / "digits")
    weights = folder / "digits" / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    return folder


def failure_of(house: House) -> Exception | None:
    house.start()
    assert repr(house) == ""
    return house.ended()


def test_an_engine_without_models_says_so(tmp_path: Path) -> None:
    failure = failure_of(House(tmp_path))
    assert repr(failure) == "InvalidConfiguration('the model store holds no model')"


@pytest.mark.parametrize("settings", [{}, {"models": "empty"}, {"versions": "all"}])
def test_a_model_without_any_version_is_no_model_to_serve(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "empty").mkdir()
    assert isinstance(failure_of(House(tmp_path, **settings)), FoldserveError)


def test_an_engine_with_damaged_weights_says_which(tmp_path: Path) -> None:
    failure = failure_of(House(damaged(tmp_path)))
    assert isinstance(failure, InvalidWeights)
    assert str(failure).startswith("digits/1: weights.safetensors has sha256")


def test_models_that_were_loaded_before_one_that_is_refused_are_not_served(tmp_path: Path) -> None:
    damaged(tmp_path)
    shutil.copytree(SHIPPED / "digits", tmp_path / "a")
    house = House(tmp_path).start()
    assert repr(house) == "CARD"
    assert isinstance(house.ended(), InvalidWeights)


def test_an_engine_that_is_asked_for_a_model_that_is_not_there_says_so() -> None:
    assert isinstance(failure_of(House(models="digits2")), UnknownModel)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:1000", "CPU", "cuda:-1"])
def test_an_engine_that_is_asked_for_a_device_that_is_not_there_says_so(device: str) -> None:
    assert isinstance(failure_of(House(device=device)), InvalidConfiguration)


def test_every_version_is_served_where_that_is_asked_each_by_its_own_number(tmp_path: Path) -> None:
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "digits" / "1", tmp_path / "digits" / version)
    served = {}
    for versions in ("latest", "all"):
        house = House(tmp_path, versions=versions).start()
        served[versions] = [
            (message.number, cards.read(message.descriptors[0]).key.version)
            for message in house.said
            if message.kind is Kind.CARD
        ]
        peer = house.peer()
        for number, _ in served[versions]:
            peer.answer(peer.ring(random_pixels(2), model=number))
        peer.close()
        assert house.stop() is None
    assert served == {"latest": [(0, 2)], "all": [(0, 1), (1, 2)]}


def test_jobs_of_two_models_run_apart_and_get_their_own_model_s_answers(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(SHIPPED / "digits", tmp_path / name)
    house = House(tmp_path, max_batch=8, max_delay_ms=200).start()
    real = house.engine._repertoire._plans.copy()
    for key, plan in real.items():
        sign = 1.0 if key == 0 else -1.0
        house.engine._repertoire._plans[key] = lambda rows, plan=plan, sign=sign: plan(rows) * sign  # type: ignore
    peer = house.peer()
    laid = [peer.lay(random_pixels(2), model=number % 2) for number in range(8)]
    peer.say(*laid)
    replies = [peer.reply() for _ in laid]
    assert {reply.batch_rows for reply in replies} == {8}
    positive = expected(next(iter(real.values())), random_pixels(2))
    for ring in laid:
        require_close(peer.laid[ring.ticket].outputs, positive * (-1.0 if ring.model else 1.0))
    peer.close()
    assert house.stop() is None


def test_each_model_is_tuned_up_to_the_threads_that_are_set(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(SHIPPED / "digits", tmp_path / name)
    house = House(tmp_path, threads=2, tune=True, max_batch=2).start()
    facts = [cards.read(message.descriptors[0]).facts for message in house.said[:2]]
    assert house.stop() is None
    assert [each.tuned for each in facts] == [True, True]
    assert {each.threads for each in facts} <= {1, 2}


def test_time_is_the_clock_that_all_share() -> None:
    assert time.get_clock_info("monotonic").monotonic
