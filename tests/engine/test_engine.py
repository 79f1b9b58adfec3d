"""The engine: it loads the store, runs batches, lets a bad job fail alone, and tells how it ended."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from service.batching.batcher import Batcher
from service.engine.protocol import Message, ModelLoaded, Ready, Stopped

from service.batching.job import Answer, Job, ModelKey
from service.engine import card as cards
from service.engine.client import EngineClient
from service.engine.engine import Engine
from service.errors import (
    Draining,
    EngineFailed,
    FoldserveError,
    InvalidConfiguration,
    InvalidWeights,
    UnknownModel,
)
from service.settings import Settings
from service.store.model_store import ModelStore
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SHIPPED = Path(__file__).parents[2] / "model_store"
DIGITS = ModelKey("digits", 1)
HANG_S = 120.0


class Announced:
    """What an engine has announced, and when that is the end of it."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.settled = threading.Event()
        self.stopped = threading.Event()

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, (Ready, Stopped)):
            self.settled.set()
        if isinstance(message, Stopped):
            self.stopped.set()

    def failure(self) -> Exception | None:
        assert self.stopped.wait(HANG_S)
        last = self.messages[-1]
        assert isinstance(last, Stopped)
        return last.failure

    def __repr__(self) -> str:
        return " ".join(type(message).__name__ for message in self.messages)


class House:
    """An engine with what it needs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(model_store=folder, device=settings.pop("device", "cpu"), **settings)
        self.batcher = Batcher(self.settings.limits)
        self.telemetry = Telemetry()
        self.announced = Announced()
        self.engine = Engine(ModelStore(folder), self.settings, self.batcher, self.telemetry, self.announced)

    def start(self) -> House:
        self.engine.start()
        assert self.announced.settled.wait(HANG_S)
        return self

    def stop(self) -> Exception | None:
        self.batcher.close()
        failure = self.announced.failure()
        assert self.engine.join(HANG_S)
        return failure


class Plan:
    """Stands in a real plan's place: hangs until told to go, fails for poison, else asks it."""

    POISON = 13

    def __init__(self, real: Callable[[Tensor], Tensor]) -> None:
        self.real = real
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def __call__(self, rows: Tensor) -> Tensor:
        self.batches.append(len(rows))
        self.entered.release()
        assert self.go.wait(HANG_S)
        if (rows == self.POISON).flatten(1).all(1).any():
            raise RuntimeError("the device fell over")
        return self.real(rows)


class Caller:
    """Waits for the outcome of one job."""

    def __init__(self, pixels: np.ndarray, key: ModelKey = DIGITS) -> None:
        self.heard: list[Answer | FoldserveError] = []
        self._come = threading.Event()
        self.job = Job(key, pixels, self._reply, arrived=time.monotonic())

    def _reply(self, outcome: Answer | FoldserveError) -> None:
        self.heard.append(outcome)
        self._come.set()

    def outcome(self) -> Answer | FoldserveError:
        assert self._come.wait(HANG_S)
        return self.heard[0]

    def answer(self) -> Answer:
        outcome = self.outcome()
        assert isinstance(outcome, Answer), outcome
        return outcome


def random_pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """One engine with the shipped digits model, for all tests that leave it as it was."""
    house = House(SHIPPED, models="digits").start()
    yield house
    assert house.stop() is None


@pytest.fixture
def plan(shared: House) -> Iterator[Plan]:
    """The shared engine's plan for digits, replaced by a stand-in for one test."""
    real = shared.engine._plans[DIGITS]
    stand_in = Plan(real)
    shared.engine._plans[DIGITS] = stand_in  # type: ignore[assignment]  # what the engine needs of it
    yield stand_in
    stand_in.go.set()
    shared.engine._plans[DIGITS] = real


def together(house: House, plan: Plan, *callers: Caller) -> None:
    """Let the engine compute these in one batch, by letting them wait behind another."""
    blocker = Caller(random_pixels(1))
    house.batcher.submit(blocker.job)
    assert plan.entered.acquire(timeout=HANG_S)
    for caller in callers:
        house.batcher.submit(caller.job)
    plan.go.set()
    blocker.answer()


# A life without trouble


def test_models_are_announced_before_the_engine_is_ready(shared: House) -> None:
    assert repr(shared.announced) == "ModelLoaded Ready"
    loaded = shared.announced.messages[0]
    assert isinstance(loaded, ModelLoaded)
    assert cards.read(loaded.card).key == DIGITS


def test_a_job_gets_what_the_plan_computes_for_its_rows(shared: House) -> None:
    caller = Caller(random_pixels(3))
    shared.batcher.submit(caller.job)
    answer = caller.answer()
    expected = shared.engine._plans[DIGITS](torch.from_numpy(random_pixels(3))).numpy()
    np.testing.assert_allclose(answer.rows, expected, rtol=1e-4, atol=1e-4)
    assert (answer.rows.dtype.name, answer.rows.shape, answer.batch_rows) == ("float32", (3, 10), 3)
    assert answer.compute_s > 0


def test_rows_may_be_a_read_only_unaligned_view_of_a_body(shared: House) -> None:
    floats = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    view = np.frombuffer(b"x" + floats.tobytes(), np.dtype("<f4"), offset=1).reshape(floats.shape)
    assert not view.flags.writeable
    assert not view.flags.aligned
    odd, plain = Caller(view), Caller(floats)
    for caller in (odd, plain):
        shared.batcher.submit(caller.job)
    np.testing.assert_allclose(odd.answer().rows, plain.answer().rows, rtol=1e-4, atol=1e-4)


def test_a_batch_of_many_jobs_gives_each_its_own_rows(shared: House, plan: Plan) -> None:
    callers = [Caller(random_pixels(1 + n % 3, seed=n)) for n in range(9)]
    together(shared, plan, *callers)
    for number, caller in enumerate(callers):
        answer = caller.answer()
        expected = plan.real(torch.from_numpy(random_pixels(1 + number % 3, seed=number))).numpy()
        np.testing.assert_allclose(answer.rows, expected, rtol=1e-4, atol=1e-4)
        assert answer.batch_rows == 18
    assert plan.batches == [1, 18]


def test_a_job_larger_than_a_batch_is_answered_whole(shared: House) -> None:
    caller = Caller(random_pixels(150))
    shared.batcher.submit(caller.job)
    assert caller.answer().rows.shape == (150, 10)


def test_a_computed_batch_is_counted(shared: House) -> None:
    def rows() -> float:
        return (
            shared.telemetry.registry.get_sample_value(
                "foldserve_rows_total", {"model": "digits", "version": "1"}
            )
            or 0.0
        )

    before = rows()
    caller = Caller(random_pixels(5))
    shared.batcher.submit(caller.job)
    caller.answer()
    assert rows() - before == 5


def test_the_client_and_the_engine_work_together(tmp_path: Path) -> None:
    async def main() -> Answer:
        house = House(SHIPPED, models="digits", max_batch=2)
        client = EngineClient(house.batcher)
        house.engine._announce = client.hear
        house.engine.start()
        await asyncio.wait_for(client.is_ready.wait(), HANG_S)
        assert client.card("digits").facts.max_batch == 2
        answers = await asyncio.gather(*(client.infer(DIGITS, random_pixels(1), HANG_S) for _ in range(8)))
        house.batcher.close()
        await asyncio.wait_for(client.stopped.wait(), HANG_S)
        assert (client.state, client.failure) == ("stopped", None)
        assert await asyncio.to_thread(house.engine.join, HANG_S)
        return answers[0]

    assert asyncio.run(main()).rows.shape == (1, 10)


# Poison


def test_a_poisoned_job_fails_alone(shared: House, plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    good = [Caller(random_pixels(2, seed=n)) for n in range(3)]
    bad = Caller(np.full((1, 1, 8, 8), Plan.POISON, np.uint8))
    together(shared, plan, good[0], bad, *good[1:])
    failure = bad.outcome()
    assert repr(failure) == "EngineFailed('the rows could not be computed')"
    for number, caller in enumerate(good):
        expected = plan.real(torch.from_numpy(random_pixels(2, seed=number))).numpy()
        np.testing.assert_allclose(caller.answer().rows, expected, rtol=1e-4, atol=1e-4)
        assert caller.answer().batch_rows == 2
    assert plan.batches == [1, 7, 2, 1, 2, 2]
    assert [len(caller.heard) for caller in (*good, bad)] == [1, 1, 1, 1]
    assert "the device fell over" in caplog.text


def test_rows_of_another_shape_fail_alone(shared: House, plan: Plan) -> None:
    good, bad = Caller(random_pixels(1)), Caller(np.zeros((1, 2, 8, 8), np.uint8))
    together(shared, plan, bad, good)
    assert isinstance(bad.outcome(), EngineFailed)
    assert good.answer().rows.shape == (1, 10)


def test_an_engine_goes_on_after_a_failed_batch(shared: House, plan: Plan) -> None:
    plan.go.set()
    for _ in range(3):
        bad, good = Caller(np.full((1, 1, 8, 8), Plan.POISON, np.uint8)), Caller(random_pixels(1))
        shared.batcher.submit(bad.job)
        assert isinstance(bad.outcome(), EngineFailed)
        shared.batcher.submit(good.job)
        good.answer()


def test_a_job_that_was_cancelled_while_its_batch_failed_is_not_computed_again(
    shared: House, plan: Plan
) -> None:
    gone, stays = Caller(random_pixels(3)), Caller(random_pixels(1))

    def fail_together(rows: Tensor) -> Tensor:
        if len(rows) == 4:
            gone.job.cancelled = True
            raise RuntimeError("the device fell over")
        return real(rows)

    real, plan.real = plan.real, fail_together
    together(shared, plan, gone, stays)
    assert stays.answer().rows.shape == (1, 10)
    gone.outcome()
    assert plan.batches == [1, 4, 1], "the blocker, both together, the one that still waits"


# Endings


def test_a_closed_engine_answers_what_waits_and_stops_without_a_failure() -> None:
    house = House(SHIPPED, models="digits").start()
    callers = [Caller(random_pixels(40, seed=n)) for n in range(5)]
    for caller in callers:
        house.batcher.submit(caller.job)
    assert house.stop() is None
    assert [caller.answer().rows.shape for caller in callers] == [(40, 10)] * 5
    assert repr(house.announced) == "ModelLoaded Ready Stopped"


def damaged(folder: Path) -> Path:
    shutil.copytree(SHIPPED / "digits", folder / "digits")
    weights = folder / "digits" / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    return folder


def failure_of(house: House) -> Exception | None:
    house.start()
    assert house.engine.join(HANG_S)
    assert repr(house.announced) == "Stopped"
    with pytest.raises(Draining):
        house.batcher.submit(Caller(random_pixels(1)).job)
    return house.announced.failure()


def test_an_engine_without_models_says_so_and_stops(tmp_path: Path) -> None:
    failure = failure_of(House(tmp_path))
    assert repr(failure) == "InvalidConfiguration('the model store holds no model')"


@pytest.mark.parametrize("settings", [{}, {"models": "empty"}, {"versions": "all"}])
def test_a_model_without_any_version_is_no_model_to_serve(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "empty").mkdir()
    house = House(tmp_path, **settings).start()
    house.batcher.close()
    assert isinstance(house.announced.failure(), FoldserveError)
    assert repr(house.announced) == "Stopped"


def test_an_engine_with_damaged_weights_says_which_and_stops(tmp_path: Path) -> None:
    failure = failure_of(House(damaged(tmp_path)))
    assert isinstance(failure, InvalidWeights)
    assert str(failure).startswith("digits/1: weights.safetensors has sha256")


def test_an_engine_that_is_asked_for_a_model_that_is_not_there_stops(tmp_path: Path) -> None:
    assert isinstance(failure_of(House(SHIPPED, models="digits2")), UnknownModel)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:1000", "CPU", "cuda:-1"])
def test_an_engine_that_is_asked_for_a_device_that_is_not_there_stops(device: str) -> None:
    assert isinstance(failure_of(House(SHIPPED, device=device)), InvalidConfiguration)


def test_those_who_wait_for_an_engine_that_fails_hear_of_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    caller = Caller(random_pixels(1))
    house.batcher.submit(caller.job)
    house.start()
    assert repr(caller.outcome()) == "EngineFailed('the engine stopped')"


def test_an_engine_whose_loop_breaks_fails_its_jobs_and_stops() -> None:
    house = House(SHIPPED, models="digits", max_delay_ms=10_000).start()
    unknown = Caller(random_pixels(1), ModelKey("never admitted", 1))
    house.batcher.submit(unknown.job)
    assert isinstance(house.announced.failure(), KeyError)
    assert repr(unknown.outcome()) == "EngineFailed('the engine stopped')"
    assert house.engine.join(HANG_S)


def test_every_version_is_served_where_that_is_asked(tmp_path: Path) -> None:
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "digits" / "1", tmp_path / "digits" / version)
    served = {}
    for versions in ("latest", "all"):
        house = House(tmp_path, versions=versions).start()
        served[versions] = sorted(key.version for key in house.engine._plans)
        assert house.stop() is None
    assert served == {"latest": [2], "all": [1, 2]}


def test_each_model_is_tuned_up_to_the_threads_that_are_set(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(SHIPPED / "digits", tmp_path / name)
    house = House(tmp_path, threads=2, tune=True, max_batch=2).start()
    assert house.stop() is None
    loaded = [message for message in house.announced.messages if isinstance(message, ModelLoaded)]
    facts = [cards.read(message.card).facts for message in loaded]
    assert [each.tuned for each in facts] == [True, True]
    assert {each.threads for each in facts} <= {1, 2}
