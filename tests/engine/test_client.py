"""The client: it refuses before any work, answers each caller, and what it tells the board adds up."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import uvloop

from service.engine import arena as arenas
from service.engine import board as boards
from service.engine import card as cards
from service.engine.arena import Arena
from service.engine.board import Board
from service.engine.client import EngineClient
from service.engine.control import Kind, Message
from service.engine.doorbell import Cancel, Outcome, Reply, Ring
from service.errors import (
    DeadlinePassed,
    EngineFailed,
    InputTooLarge,
    NotReady,
    NotWatched,
    QueueFull,
    UnknownModel,
    UnknownVersion,
)
from service.settings import Settings
from tests.engine.cards import card
from tests.engine.fake_engine import FakeEngine, turns, until
from tests.engine.peer import HANG_S, mapped_arenas, open_descriptors, random_pixels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.batching.job import Answer
    from service.engine.card import ModelCard
    from service.engine.run import Run
    from tests.engine.house import House

MB_SLOTS = 256


class Worker:
    """A client, numbered 1 of three, and the board; `engine` is what the test has given it last."""

    def __init__(self, **settings: Any) -> None:
        descriptor = boards.create(3)
        self.board = Board(descriptor)
        os.close(descriptor)
        self.said: list[Message] = []
        self.client = EngineClient(Settings(**settings), self.board, 1, self.said.append)
        self.engine: FakeEngine | None = None

    def hear(self, kind: Kind, number: int = 0, *descriptors: int) -> None:
        self.client.hear(Message(kind, number, b"", descriptors))

    def load(self, *loaded: ModelCard) -> None:
        for number, each in enumerate(loaded):
            self.hear(Kind.CARD, number, cards.write(each))

    def link(self, slots: int = MB_SLOTS) -> FakeEngine:
        """A new link, to a new engine."""
        memory, (ours, theirs) = arenas.create(slots), socket.socketpair()
        engine = FakeEngine(theirs, Arena(memory), row=64, answer=10)
        self.hear(Kind.LINK, 1, ours.detach(), memory)
        self.engine = engine
        return engine

    def start(self, *loaded: ModelCard, slots: int = MB_SLOTS) -> FakeEngine:
        """An engine with these models; one of digits where none is named."""
        self.load(*(loaded or [card()]))
        engine = self.link(slots)
        self.hear(Kind.READY)
        return engine

    def lose(self) -> None:
        """As it is when the engine dies: its end closes, and the supervisor says so."""
        if self.engine:
            self.engine.hang_up()
            self.engine = None
        self.hear(Kind.LOST)

    def reserve(self, *values: int, patience_s: float = HANG_S, model: str = "digits") -> Run:
        run = self.client.reserve(
            self.client.editions.card(model), len(values), "uint8", time.monotonic() + patience_s
        )
        run.inputs[:] = np.array(values, "uint8").reshape(-1, 1, 1, 1)
        return run

    async def predict(self, *values: int, patience_s: float = HANG_S, model: str = "digits") -> list[float]:
        """As a route does it; the first of each row's answers."""
        with self.reserve(*values, patience_s=patience_s, model=model) as run:
            answer = await self.client.infer(
                self.client.editions.card(model), run, time.monotonic() + patience_s
            )
            found: list[float] = answer.rows[:, 0].tolist()
            return found

    def task(self, *values: int, patience_s: float = HANG_S) -> asyncio.Task[list[float]]:
        return asyncio.create_task(self.predict(*values, patience_s=patience_s))

    def told(self) -> tuple[int, float, int]:
        """What the board says of it: rows, seconds of work, slots taken."""
        self.client.beat()
        own = self.board.workers[1]
        return own.rows, round(own.work_s, 9), own.slots_taken


NOTHING = (0, 0.0, 0)


def run(test: Callable[[Worker], Awaitable[None]], **settings: Any) -> None:
    """Run a test; afterwards nothing waits, nothing is open, and nothing went wrong behind its back."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        worker = Worker(**settings)
        await test(worker)
        worker.lose()
        await turns()
        assert worker.told() == NOTHING
        assert not any(worker.board.workers[other].alive_at for other in (0, 2)), "it wrote what is another's"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(turns())
    gc.collect()
    before = open_descriptors(), mapped_arenas()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    gc.collect()
    assert complaints == []
    assert (open_descriptors(), mapped_arenas()) == before


# Answers


def test_a_caller_gets_the_answers_to_its_rows() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        with worker.reserve(1, 2, 3) as reserved:
            deadline = time.monotonic() + HANG_S
            task = asyncio.create_task(
                worker.client.infer(worker.client.editions.card("digits"), reserved, deadline)
            )
            engine.answer(*await engine.hears_rings(1))
            answer: Answer = await task
            assert answer.rows.tolist() == [[2.0] * 10, [4.0] * 10, [6.0] * 10]
            assert (answer.queue_s, answer.compute_s, answer.batch_rows) == (0.25, 0.5, 3)

    run(test)


def test_hundreds_of_callers_at_once_each_get_their_own_rows() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(slots=1024)
        tasks = [worker.task(number % 128, number % 100) for number in range(500)]
        for _ in range(100):
            engine.answer(*reversed(await engine.hears_rings(5)))
        found = await asyncio.gather(*tasks)
        assert found == [[2.0 * (number % 128), 2.0 * (number % 100)] for number in range(500)]

    run(test)


def test_each_model_is_asked_for_by_the_number_that_the_engine_gave_it() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(card("a"), card("b", 1), card("b", 2))
        tasks = [asyncio.create_task(worker.predict(5, model=model)) for model in ("b", "a")]
        rings = await engine.hears_rings(2)
        assert [ring.model for ring in rings] == [2, 0]
        engine.answer(*rings)
        await asyncio.gather(*tasks)

    run(test)


def test_network_inputs_and_pixels_are_told_apart() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        digits = worker.client.editions.card("digits")
        deadline = time.monotonic() + HANG_S
        for number, dtype in enumerate(("uint8", "float32")):
            with worker.client.reserve(digits, 2, dtype, deadline) as reserved:
                assert (reserved.inputs.shape, reserved.inputs.dtype.name) == ((2, 1, 8, 8), dtype)
                task = asyncio.create_task(worker.client.infer(digits, reserved, deadline))
                (ring,) = await engine.hears_rings(1)
                assert ring.dtype == number
                engine.say(Reply(ring.ticket, Outcome.ANSWERED, 2))
                await task

    run(test)


def test_a_client_and_a_real_engine_work_together(shared: House) -> None:
    async def test(worker: Worker) -> None:
        plan, told = shared.engine._repertoire._plans[0], cards.read(shared.said[0].descriptors[0])
        memory, (ours, theirs) = arenas.create(MB_SLOTS), socket.socketpair()
        shared.control.send(Message(Kind.LINK, 1, descriptors=(theirs.fileno(), memory)))
        theirs.close()
        worker.load(told)
        worker.hear(Kind.LINK, 1, ours.detach(), memory)
        worker.hear(Kind.READY)
        digits = worker.client.editions.card("digits")

        async def one(rows: int, seed: int) -> np.ndarray:
            deadline = time.monotonic() + HANG_S
            with worker.client.reserve(digits, rows, "uint8", deadline) as reserved:
                reserved.inputs[:] = random_pixels(rows, seed)
                return (await worker.client.infer(digits, reserved, deadline)).rows.copy()

        sizes = [1, 3, 70, 2, 150, 1, 1, 64]
        answers = await asyncio.gather(*(one(rows, seed) for seed, rows in enumerate(sizes)))
        for seed, (rows, answer) in enumerate(zip(sizes, answers, strict=True)):
            wanted = plan(torch.from_numpy(random_pixels(rows, seed))).numpy()
            np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-4)
        assert worker.told() == NOTHING
        worker.hear(Kind.LOST)
        await until(lambda: not shared.engine._switchboard._jobs)

    run(test)


# What the board is told


def test_rows_count_from_their_reservation_to_the_engine_s_reply() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        reserved = worker.reserve(1, 2, 3)
        assert worker.told() == (3, 0.03, 2)
        digits, deadline = worker.client.editions.card("digits"), time.monotonic() + HANG_S
        task = asyncio.create_task(worker.client.infer(digits, reserved, deadline))
        rings = await engine.hears_rings(1)
        assert worker.told() == (3, 0.03, 2)
        engine.answer(*rings)
        await task
        assert worker.told() == (0, 0.0, 2), "they wait no more; the answers lie there"
        reserved.release()
        assert worker.told() == NOTHING

    run(test)


@pytest.mark.parametrize("end", ["failed", "late", "cancelled", "never rung", "cancelled at once", "lost"])
def test_however_a_request_ends_its_rows_and_slots_are_back(end: str) -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        keeps = worker.reserve(7)
        if end == "never rung":
            with pytest.raises(ZeroDivisionError), worker.reserve(1, 2):
                _ = 1 / 0
        elif end == "cancelled at once":
            task = worker.task(1, 2)
            await asyncio.sleep(0)
            task.cancel()
            ring, _ = await engine.hears(Ring, Cancel)
            assert worker.told() == (3, 0.03, 4)
            engine.say(Reply(ring.ticket, Outcome.CANCELLED))
        else:
            task = worker.task(1, 2, patience_s=0.5 if end == "late" else HANG_S)
            (ring,) = await engine.hears_rings(1)
            assert worker.told() == (3, 0.03, 4)
            if end == "failed":
                engine.say(Reply(ring.ticket, Outcome.FAILED))
            elif end == "lost":
                worker.lose()
            else:
                if end == "cancelled":
                    task.cancel()
                await engine.hears(Cancel)
                assert worker.told() == (3, 0.03, 4), "the engine has not replied"
                engine.say(Reply(ring.ticket, Outcome.LATE))
            with pytest.raises((EngineFailed, DeadlinePassed, asyncio.CancelledError)):
                await task
        await until(lambda: worker.told()[0] == 1)
        assert worker.told() == (1, 0.01, 0 if end == "lost" else 2)
        keeps.release()
        assert worker.told() == NOTHING

    run(test)


def test_the_board_hears_that_the_worker_lives_and_what_it_has() -> None:
    async def test(worker: Worker) -> None:
        own = worker.board.workers[1]
        assert own.alive_at == 0
        worker.client.beat()
        assert abs(own.alive_at - time.monotonic()) < HANG_S
        worker.start(slots=128)
        assert own.slots == 128
        worker.lose()
        assert own.slots == 0

    run(test)


def test_the_rate_is_learned_from_answers() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(card(max_batch=4, seconds_per_row=0.01))
        for _ in range(100):
            task = worker.task(1, 2, 3, 4)
            (ring,) = await engine.hears_rings(1)
            engine.say(Reply(ring.ticket, Outcome.ANSWERED, 4, 0.0, 0.2))
            await task
        with worker.reserve(1):
            assert worker.told()[1] == pytest.approx(0.05, rel=0.01)

    run(test)


def test_the_rate_of_a_job_that_was_split_is_that_of_its_rows() -> None:
    """Its seconds and its batch are those of all its batches, which others shared."""

    async def test(worker: Worker) -> None:
        engine = worker.start(card(max_batch=4, seconds_per_row=0.05))
        for _ in range(50):
            task = worker.task(*range(12))
            (ring,) = await engine.hears_rings(1)
            engine.say(Reply(ring.ticket, Outcome.ANSWERED, 16, 0.0, 0.8))
            await task
        with worker.reserve(1):
            assert worker.told()[1] == pytest.approx(0.05, rel=0.01)

    run(test)


# Deadlines and cancelling (what becomes of the run: test_line.py)


def test_a_caller_whose_time_is_over_hears_so_and_a_late_answer_harms_nobody() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        with pytest.raises(DeadlinePassed):
            await worker.predict(1, patience_s=0.02)
        ring, cancel = await engine.hears(Ring, Cancel)
        assert ring.ticket == cancel.ticket
        engine.answer(ring)
        task = worker.task(3)
        engine.answer(*await engine.hears_rings(1))
        assert await task == [6.0]

    run(test)


def test_a_cancelled_caller_takes_its_job_back_and_harms_nobody_in_the_batch() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        gone, *stay = [worker.task(number) for number in range(4)]
        rings = await engine.hears_rings(4)
        gone.cancel()
        assert await engine.hears(Cancel) == [Cancel(rings[0].ticket)]
        engine.answer(*rings)
        assert await asyncio.gather(*stay) == [[2.0], [4.0], [6.0]]
        assert gone.cancelled()

    run(test)


# Refused before any work


def deadline_in(seconds: float) -> float:
    return time.monotonic() + seconds


def test_nothing_is_reserved_before_the_engine_is_ready() -> None:
    async def test(worker: Worker) -> None:
        worker.load(card())
        digits = worker.client.editions.card("digits")
        for is_linked in (False, True):
            if is_linked:
                worker.link()
            with pytest.raises(NotReady, match=r"^models are still being loaded$") as caught:
                worker.client.reserve(digits, 1, "uint8", deadline_in(HANG_S))
            assert caught.value.retry_after_s == 1
            with pytest.raises(NotReady):
                worker.client.refuse_when_full(digits, deadline_in(HANG_S))
        worker.hear(Kind.READY)
        worker.client.refuse_when_full(digits, deadline_in(HANG_S))

    run(test)


@pytest.mark.parametrize("is_told", [True, False])
def test_nothing_is_reserved_after_the_engine_has_gone(is_told: bool) -> None:
    """The end of its socket comes before the supervisor's word."""

    async def test(worker: Worker) -> None:
        engine = worker.start()
        digits = worker.client.editions.card("digits")
        if is_told:
            worker.lose()
        else:
            engine.hang_up()
            await until(lambda: worker.client._line is not None and worker.client._line.gone.is_set())
        with pytest.raises(NotReady):
            worker.client.reserve(digits, 1, "uint8", deadline_in(HANG_S))

    run(test)


def test_more_rows_than_could_ever_wait_are_too_many() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        with pytest.raises(InputTooLarge, match=r"^9 rows; the queue holds 8$"):
            worker.reserve(*range(9))
        worker.reserve(*range(8)).release()

    run(test, max_waiting_rows=8)


def test_more_rows_than_could_ever_lie_in_the_arena_are_too_many() -> None:
    async def test(worker: Worker) -> None:
        worker.start(slots=8)
        with pytest.raises(InputTooLarge, match=r"need 11 slots of memory, of which there are 8$"):
            worker.reserve(*[0] * 400)
        assert worker.told() == NOTHING

    run(test)


def test_a_queue_that_is_full_over_all_workers_refuses_at_once() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        others = worker.board.workers[2]
        others.rows, others.work_s = 60, 5.0
        worker.reserve(*range(4)).release()
        with pytest.raises(QueueFull, match=r"^60 rows wait already; the queue holds 64$") as caught:
            worker.reserve(*range(5))
        assert caught.value.retry_after_s == 1, "a sixtieth of five seconds, rounded up"
        assert worker.told() == NOTHING
        others.rows = 64
        with pytest.raises(QueueFull):
            worker.client.refuse_when_full(worker.client.editions.card("digits"), deadline_in(HANG_S))
        worker.board.engine.rows = 30
        worker.client.refuse_when_full(worker.client.editions.card("digits"), deadline_in(HANG_S))
        others.rows = others.work_s = worker.board.engine.rows = 0

    run(test, max_waiting_rows=64)


def test_a_request_that_would_wait_longer_than_it_has_is_refused_at_once() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        others = worker.board.workers[0]
        others.rows, others.work_s = 4, 9.0
        with pytest.raises(QueueFull, match=r"^the queue needs about 9\.0 s, this request has") as caught:
            worker.reserve(1, patience_s=2.0)
        assert caught.value.retry_after_s == 8  # 9 s and a batch of 40 ms, less 2 s
        worker.reserve(1, patience_s=HANG_S).release()
        others.rows, others.work_s = 0, 0.0
        worker.reserve(1, patience_s=0.001).release()  # nothing waits: it is taken, whatever was measured

    run(test)


# Moments


async def look(worker: Worker, rows: int) -> int:
    """How many rows of moments came back."""
    client, deadline = worker.client, time.monotonic() + HANG_S
    (loaded,) = client.editions.cards()
    with client.reserve(loaded, rows, "uint8", deadline, "moments") as run:
        assert run.outputs.shape == (rows, 2, 5)
        return len((await client.infer(loaded, run, deadline, wanted="moments")).rows)


def test_rows_of_which_moments_are_wanted_are_in_nobody_s_way_and_only_a_few_at_a_time() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(card(moments_shape=[2, 5]))
        tasks = [asyncio.create_task(look(worker, rows)) for rows in (10, 6)]
        rings = await engine.hears_rings(2)
        assert [(ring.rows, ring.wanted) for ring in rings] == [(10, "moments"), (6, "moments")]
        assert worker.told()[:2] == (0, 0.0), "nobody's answer waits for them"
        (loaded,) = worker.client.editions.cards()
        with pytest.raises(QueueFull, match=r"^16 rows are looked at already$"):
            worker.client.reserve(loaded, 1, "uint8", time.monotonic() + HANG_S, "moments")
        engine.say(*(Reply(ring.ticket, Outcome.ANSWERED, ring.rows) for ring in rings))
        assert await asyncio.gather(*tasks) == [10, 6]
        again = asyncio.create_task(look(worker, 16))
        (ring,) = await engine.hears_rings(1)
        engine.say(Reply(ring.ticket, Outcome.FAILED))
        with pytest.raises(EngineFailed):
            await again

    run(test)


def test_moments_of_a_version_that_nobody_looks_at_are_refused() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        with pytest.raises(NotWatched):
            await look(worker, 1)

    run(test)


def test_a_version_is_in_use_until_the_engine_is_done_with_its_moments() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(card(moments_shape=[2, 5]))
        task = asyncio.create_task(look(worker, 1))
        (ring,) = await engine.hears_rings(1)
        worker.hear(Kind.DROP, 0)
        task.cancel()
        await engine.hears(Cancel)
        assert worker.said == []
        engine.say(Reply(ring.ticket, Outcome.CANCELLED))
        await until(lambda: worker.said)
        assert [message.kind for message in worker.said] == [Kind.IDLE]

    run(test)


def test_rows_for_which_there_is_no_room_now_are_refused_at_once() -> None:
    async def test(worker: Worker) -> None:
        worker.start(slots=8)
        kept = [worker.reserve(number) for number in range(4)]
        with pytest.raises(QueueFull, match=r"^there is no room for 2 rows now$") as caught:
            worker.reserve(1, 2)
        assert caught.value.retry_after_s == 1
        assert worker.told() == (4, 0.04, 8)
        for each in kept:
            each.release()
        worker.reserve(1, 2).release()

    run(test)


# One engine after another


def test_everybody_who_waits_hears_at_once_that_the_engine_is_gone() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        tasks = [worker.task(number) for number in range(5)]
        await engine.hears_rings(5)
        worker.lose()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [repr(outcome) for outcome in outcomes] == ["EngineFailed('the engine stopped')"] * 5

    run(test)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_run_that_was_reserved_with_another_engine_is_refused(is_replaced: bool) -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        digits = worker.client.editions.card("digits")
        with worker.reserve(1) as reserved:
            worker.lose()
            if is_replaced:
                worker.start()
            with pytest.raises(EngineFailed, match=r"^the engine stopped$"):
                await worker.client.infer(digits, reserved, deadline_in(HANG_S))
        assert worker.told() == NOTHING

    run(test)


def test_a_new_engine_serves_on_over_a_new_line() -> None:
    async def test(worker: Worker) -> None:
        for _ in range(3):
            engine = worker.start()
            states = [worker.client.state]
            task = worker.task(4)
            engine.answer(*await engine.hears_rings(1))
            assert await task == [8.0]
            worker.lose()
            states.append(worker.client.state)
            assert states == ["ready", "starting"]
            assert [each.key for each in worker.client.editions.cards()] == [("digits", 1)], (
                "what is known stays known"
            )

    run(test)


def test_what_a_new_engine_did_not_load_is_served_no_more_by_another_s_number() -> None:
    """A version was published, or taken away, before the engine was started again."""

    async def test(worker: Worker) -> None:
        worker.start(card("a", 1), card("b", 1), card("c", 1))
        worker.lose()
        engine = worker.start(card("a", 2), card("c", 1))
        assert [each.key for each in worker.client.editions.cards()] == [("a", 2), ("c", 1)]
        with pytest.raises(UnknownModel):
            worker.client.editions.card("b")
        with pytest.raises(UnknownVersion):
            worker.client.editions.card("a", 1)
        task = asyncio.create_task(worker.predict(1, model="c"))
        (ring,) = await engine.hears_rings(1)
        assert ring.model == 1
        engine.answer(ring)
        await task

    run(test)


def test_a_card_of_the_engine_before_reserves_nothing() -> None:
    """Its rows may have another shape now; whoever read a body meanwhile tries again."""

    async def test(worker: Worker) -> None:
        worker.start()
        before = worker.client.editions.card("digits")
        worker.lose()
        worker.start(card(shape=[1, 16, 16]))
        with pytest.raises(NotReady, match=r"^the model was loaded anew meanwhile$"):
            worker.client.reserve(before, 1, "uint8", deadline_in(HANG_S))
        with pytest.raises(NotReady):
            worker.client.refuse_when_full(before, deadline_in(HANG_S))

    run(test)


# What the supervisor says


def test_the_states_follow_one_another() -> None:
    async def test(worker: Worker) -> None:
        states = [worker.client.state]
        worker.load(card())
        worker.link()
        states.append(worker.client.state)
        worker.hear(Kind.READY)
        states.append(worker.client.state)
        worker.board.engine.alive_at = time.monotonic() - 61
        states.append(worker.client.state)
        worker.board.engine.alive_at = time.monotonic()
        states.append(worker.client.state)
        worker.hear(Kind.DRAIN)
        states.append(worker.client.state)
        assert states == ["starting", "starting", "ready", "stopped", "ready", "draining"]

    run(test)


def test_what_comes_over_open_connections_while_draining_is_answered() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        worker.hear(Kind.DRAIN)
        task = worker.task(4)
        engine.answer(*await engine.hears_rings(1))
        assert await task == [8.0]
        assert worker.client.is_draining

    run(test)


@pytest.mark.parametrize("kind", [Kind.START, Kind.UP, Kind.DISMISSED])
def test_what_a_worker_is_never_told_is_an_error(kind: Kind) -> None:
    async def test(worker: Worker) -> None:
        with pytest.raises(ValueError, match=rf"^a worker is not told {kind.name}$"):
            worker.hear(kind)

    run(test)


def test_cards_are_listed_by_name_and_version_and_the_highest_is_the_default() -> None:
    async def test(worker: Worker) -> None:
        worker.start(card("b", 2), card("a", 10), card("a", 9))
        assert [one.key for one in worker.client.editions.cards()] == [("a", 9), ("a", 10), ("b", 2)]
        assert worker.client.editions.card("a").key == ("a", 10)
        assert worker.client.editions.card("a", 9).key == ("a", 9)

    run(test)


def test_an_unknown_model_or_version_is_named() -> None:
    async def test(worker: Worker) -> None:
        worker.start(card("a", 1))
        for version in (None, 1):
            with pytest.raises(UnknownModel, match=r"^no model 'b' is served$"):
                worker.client.editions.card("b", version)
        for version in (0, 2, -1):
            with pytest.raises(UnknownVersion, match=rf"^model 'a' is not served in version {version}$"):
                worker.client.editions.card("a", version)

    run(test)


def test_while_models_load_those_that_are_there_have_cards_and_others_are_not_ready() -> None:
    async def test(worker: Worker) -> None:
        worker.load(card("a", 1))
        assert worker.client.editions.card("a").key == ("a", 1)
        for model, version in (("b", None), ("a", 2)):
            with pytest.raises(NotReady, match=r"^models are still being loaded$"):
                worker.client.editions.card(model, version)

    run(test)
