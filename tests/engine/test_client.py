"""The client hears the engine, submits jobs and gives each caller its own rows or the reason why not."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from service.batching.batcher import Batcher
from service.engine.protocol import ModelLoaded, Ready, Stopped

from service.batching.job import Answer, Job, ModelKey
from service.batching.policy import Limits
from service.engine import card as cards
from service.engine.card import ModelCard, ModelFacts
from service.engine.client import EngineClient
from service.errors import (
    DeadlinePassed,
    Draining,
    EngineFailed,
    InputTooLarge,
    NotReady,
    QueueFull,
    UnknownModel,
    UnknownVersion,
)
from service.store.manifest import Input, Manifest, Output, Weights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

KEY = ModelKey("digits", 1)
HANG_S = 60.0


class WatchedBatcher(Batcher):
    """Remembers every job, so that a test can see what became of it."""

    def __init__(self, max_waiting_rows: int = 64) -> None:
        super().__init__(Limits(max_waiting_rows))
        self.jobs: list[Job] = []
        self.admit(KEY, 4)

    def submit(self, job: Job) -> None:
        super().submit(job)
        self.jobs.append(job)


class FakeEngine:
    """A thread in the engine's place: doubles rows, but hangs before every batch until `go` is set."""

    def __init__(self, batcher: Batcher, *, hangs: bool = False) -> None:
        self.batcher = batcher
        self.go = threading.Event()
        self.took = threading.Semaphore(0)
        self.computed: list[Job] = []
        if not hangs:
            self.go.set()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.batcher.close()
        self.go.set()
        self.thread.join(HANG_S)
        assert not self.thread.is_alive()

    async def takes_a_batch(self) -> None:
        assert await asyncio.to_thread(self.took.acquire, timeout=HANG_S)

    def _live(self) -> None:
        while batch := self.batcher.next_batch():
            self.took.release()
            self.go.wait(HANG_S)
            self.run(batch)

    def run(self, batch: Sequence[Job]) -> None:
        self.computed += batch
        rows = sum(map(len, batch))
        for job in batch:
            job.reply(Answer(job.rows.astype(np.float32).reshape(len(job), -1) * 2, 0.25, 0.5, rows))


class FailingEngine(FakeEngine):
    """Computes nothing, and says so."""

    def run(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.reply(EngineFailed("the rows could not be computed"))


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def card(model: str, version: int) -> ModelCard:
    manifest = Manifest(
        architecture="digits",
        input=Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0]),
        outputs=[Output()],
        weights=Weights(sha256="0" * 64),
    )
    facts = ModelFacts(
        model=model,
        version=version,
        manifest=manifest,
        labels=None,
        output_shape=[2],
        device="cpu",
        precision="float32",
        threads=0,
        tuned=False,
        preprocessing="one pass",
        memory={},
        max_batch=4,
        torch_version="2",
        layers=[],
        fold={},
        seconds={},
    )
    return ModelCard(facts, {})


async def heard(client: EngineClient, *messages: Any) -> None:
    """Let the client hear, and wait until it has."""
    for message in messages:
        client.hear(message)
    await asyncio.sleep(0)


def run(test: Callable[[EngineClient, WatchedBatcher], Awaitable[None]], **settings: Any) -> None:
    """Run a test with a client whose engine is ready; nothing may go wrong behind its back."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        batcher = WatchedBatcher(**settings)
        client = EngineClient(batcher)
        await heard(client, Ready())
        await test(client, batcher)

    asyncio.run(main())
    assert complaints == []


# Answers


def test_a_caller_gets_the_answers_to_its_rows() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher)
        answer = await client.infer(KEY, rows(1, 2, 3), HANG_S)
        assert answer.rows.tolist() == [[2.0], [4.0], [6.0]]
        assert (answer.queue_s, answer.compute_s, answer.batch_rows) == (0.25, 0.5, 3)
        engine.stop()

    run(test)


def test_hundreds_of_callers_at_once_each_get_their_own_rows() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher)
        numbers = [n % 256 for n in range(500)]
        answers = await asyncio.gather(*(client.infer(KEY, rows(n), HANG_S) for n in numbers))
        assert [answer.rows.tolist() for answer in answers] == [[[2.0 * n]] for n in numbers]
        assert max(answer.batch_rows for answer in answers) <= 4
        engine.stop()

    run(test, max_waiting_rows=500)


def test_an_engine_s_failure_reaches_the_caller() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FailingEngine(batcher)
        with pytest.raises(EngineFailed, match=r"^the rows could not be computed$"):
            await client.infer(KEY, rows(1), HANG_S)
        engine.stop()

    run(test)


def test_everybody_who_waits_hears_that_the_engine_stopped() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        first = asyncio.create_task(client.infer(KEY, rows(0), HANG_S))
        await engine.takes_a_batch()
        waiting = [asyncio.create_task(client.infer(KEY, rows(n), HANG_S)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        batcher.fail_all(EngineFailed("the engine stopped"))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [repr(outcome) for outcome in outcomes] == ["EngineFailed('the engine stopped')"] * 3
        engine.stop()
        assert (await first).rows.tolist() == [[0.0]]

    run(test)


# Deadlines and cancelling


def test_a_caller_whose_time_is_over_hears_so_and_its_job_never_reaches_the_engine() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        first = asyncio.create_task(client.infer(KEY, rows(1), HANG_S))
        await engine.takes_a_batch()
        with pytest.raises(DeadlinePassed, match=r"^no answer within 20 ms$"):
            await client.infer(KEY, rows(2), 0.02)
        assert repr(batcher.jobs) == "[<Job digits/1 1 rows>, <Job digits/1 1 rows cancelled>]"
        engine.stop()
        assert (await first).rows.tolist() == [[2.0]]
        assert engine.computed == batcher.jobs[:1]

    run(test)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_no_time_at_all_is_a_deadline_passed(timeout_s: float) -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher)
        with pytest.raises(DeadlinePassed):
            await client.infer(KEY, rows(1), timeout_s)
        engine.stop()
        assert engine.computed == []

    run(test)


def test_an_answer_that_comes_too_late_harms_nobody() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        late = asyncio.create_task(client.infer(KEY, rows(1), 0.02))
        await engine.takes_a_batch()
        with pytest.raises(DeadlinePassed):
            await late
        engine.go.set()
        answer = await client.infer(KEY, rows(2), HANG_S)
        assert answer.rows.tolist() == [[4.0]]
        assert len(engine.computed) == 2
        engine.stop()

    run(test)


def test_a_late_failure_harms_nobody() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FailingEngine(batcher, hangs=True)
        late = asyncio.create_task(client.infer(KEY, rows(1), 0.02))
        await engine.takes_a_batch()
        with pytest.raises(DeadlinePassed):
            await late
        engine.stop()
        await asyncio.sleep(0)

    run(test)


def test_a_cancelled_caller_takes_its_job_back() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        first = asyncio.create_task(client.infer(KEY, rows(1), HANG_S))
        await engine.takes_a_batch()
        gone = asyncio.create_task(client.infer(KEY, rows(2), HANG_S))
        stays = asyncio.create_task(client.infer(KEY, rows(3), HANG_S))
        await asyncio.sleep(0)
        assert repr(batcher) == "<Batcher open, 2 jobs, 2 rows waiting>"
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert repr(batcher.jobs[1]) == "<Job digits/1 1 rows cancelled>"
        engine.stop()
        assert [(await task).rows.tolist() for task in (first, stays)] == [[[2.0]], [[6.0]]]
        assert engine.computed == [batcher.jobs[0], batcher.jobs[2]]

    run(test)


def test_cancelling_while_the_engine_computes_harms_nobody_in_the_batch() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        blocker = asyncio.create_task(client.infer(KEY, rows(0), HANG_S))
        await engine.takes_a_batch()
        batch = [asyncio.create_task(client.infer(KEY, rows(n), HANG_S)) for n in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        engine.go.set()
        await engine.takes_a_batch()
        batch[0].cancel()
        outcomes = await asyncio.gather(blocker, *batch[1:])
        assert [outcome.rows.tolist() for outcome in outcomes] == [[[0.0]], [[4.0]], [[6.0]], [[8.0]]]
        engine.stop()

    run(test)


# Refused before any work


def test_nothing_is_inferred_before_the_engine_is_ready() -> None:
    async def main() -> None:
        batcher = WatchedBatcher()
        client = EngineClient(batcher)
        assert client.state == "starting"
        with pytest.raises(NotReady, match=r"^models are still being loaded$") as caught:
            await client.infer(KEY, rows(1), HANG_S)
        assert caught.value.retry_after_s == 1
        assert batcher.jobs == []

    asyncio.run(main())


def test_nothing_is_inferred_after_the_engine_has_stopped() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        failure = RuntimeError("the device is gone")
        await heard(client, Stopped(failure))
        assert (client.state, client.failure, client.stopped.is_set()) == ("stopped", failure, True)
        with pytest.raises(NotReady, match=r"^the engine has stopped$") as caught:
            await client.infer(KEY, rows(1), HANG_S)
        assert caught.value.retry_after_s == 5
        assert batcher.jobs == []

    run(test)


def test_more_rows_than_could_ever_wait_are_too_many() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        with pytest.raises(InputTooLarge, match=r"^9 rows; the queue holds 8$"):
            await client.infer(KEY, rows(*range(9)), HANG_S)
        assert repr(batcher) == "<Batcher open, 0 jobs, 0 rows waiting>"

    run(test, max_waiting_rows=8)


def test_a_full_queue_and_a_closed_one_refuse_at_once() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher, hangs=True)
        tasks = [asyncio.create_task(client.infer(KEY, rows(1), HANG_S))]
        await engine.takes_a_batch()
        tasks.append(asyncio.create_task(client.infer(KEY, rows(*range(8)), HANG_S)))
        await asyncio.sleep(0)
        assert client.waiting_rows == 8
        with pytest.raises(QueueFull) as caught:
            await client.infer(KEY, rows(1), HANG_S)
        assert caught.value.retry_after_s == 1
        batcher.close()
        with pytest.raises(Draining):
            await client.infer(KEY, rows(1), HANG_S)
        engine.stop()
        assert len(await asyncio.gather(*tasks)) == 2

    run(test, max_waiting_rows=8)


# What the engine announces


def test_the_states_of_the_engine_follow_one_another() -> None:
    async def main() -> None:
        client = EngineClient(WatchedBatcher())
        states = [client.state]
        for message in (ModelLoaded(cards.write(card("a", 1))), Ready(), Stopped()):
            await heard(client, message)
            states.append(client.state)
        assert states == ["starting", "starting", "ready", "stopped"]
        assert client.failure is None

    asyncio.run(main())


def test_draining_is_final_but_for_the_end() -> None:
    async def main() -> None:
        client = EngineClient(WatchedBatcher())
        client.drain()
        await heard(client, Ready())
        assert (client.state, client.is_ready.is_set()) == ("draining", True)
        await heard(client, Stopped())
        client.drain()
        assert client.state == "stopped"

    asyncio.run(main())


def test_what_comes_over_open_connections_while_draining_is_answered() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        engine = FakeEngine(batcher)
        client.drain()
        assert (await client.infer(KEY, rows(4), HANG_S)).rows.tolist() == [[8.0]]
        engine.stop()

    run(test)


def test_the_engine_may_announce_from_its_own_thread() -> None:
    async def main() -> None:
        client = EngineClient(WatchedBatcher())
        thread = threading.Thread(target=client.hear, args=[Ready()])
        thread.start()
        await asyncio.wait_for(client.is_ready.wait(), HANG_S)
        thread.join()
        assert client.state == "ready"

    asyncio.run(main())


def test_the_descriptor_of_a_card_is_closed_once_it_is_read() -> None:
    async def main() -> None:
        client = EngineClient(WatchedBatcher())
        descriptor = cards.write(card("a", 1))
        await heard(client, ModelLoaded(descriptor))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)

    asyncio.run(main())


def test_cards_are_listed_by_name_and_version_and_the_highest_is_the_default() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        loaded = [card("b", 2), card("a", 10), card("a", 9)]
        await heard(client, *(ModelLoaded(cards.write(one)) for one in loaded))
        assert [one.key for one in client.cards()] == [("a", 9), ("a", 10), ("b", 2)]
        assert client.card("a").key == ("a", 10)
        assert client.card("a", 9).key == ("a", 9)

    run(test)


def test_an_unknown_model_or_version_is_named() -> None:
    async def test(client: EngineClient, batcher: WatchedBatcher) -> None:
        await heard(client, ModelLoaded(cards.write(card("a", 1))))
        with pytest.raises(UnknownModel, match=r"^no model 'b' is served$"):
            client.card("b")
        with pytest.raises(UnknownModel, match=r"^no model 'b' is served$"):
            client.card("b", 1)
        for version in (0, 2, -1):
            with pytest.raises(UnknownVersion, match=rf"^model 'a' is not served in version {version}$"):
                client.card("a", version)

    run(test)


def test_while_models_load_those_that_are_there_have_cards_and_others_are_not_ready() -> None:
    async def main() -> None:
        client = EngineClient(WatchedBatcher())
        await heard(client, ModelLoaded(cards.write(card("a", 1))))
        assert client.card("a").key == ("a", 1)
        for model, version in (("b", None), ("a", 2)):
            with pytest.raises(NotReady, match=r"^models are still being loaded$"):
                client.card(model, version)

    asyncio.run(main())
