"""Changes as a worker sees them: what it uses is told until the last use, and each asker hears one end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from service.engine import card as cards
from service.engine.change import Change, Settled
from service.engine.control import Kind, Message
from service.engine.doorbell import Cancel, Outcome, Reply, Ring
from service.errors import (
    Draining,
    EngineFailed,
    FoldserveError,
    LoadRefused,
    NotReady,
    QueueFull,
    TooFewRows,
    UnknownModel,
)
from tests.engine.cards import card
from tests.engine.fake_engine import turns, until
from tests.engine.peer import HANG_S
from tests.engine.test_client import NOTHING, Worker, run

if TYPE_CHECKING:
    from service.engine.card import ModelCard

LOAD = Change(action="load", model="digits")


def said(worker: Worker) -> list[str]:
    """What the worker told the supervisor since this was last asked."""
    found = [f"{message.kind.name.lower()} {message.number}" for message in worker.said]
    worker.said.clear()
    return found


def add(worker: Worker, number: int, loaded: ModelCard) -> None:
    """A version that is loaded while others are served."""
    worker.hear(Kind.CARD, number, cards.write(loaded))


def settle(worker: Worker, number: int, refused: FoldserveError | None = None) -> None:
    settled = Settled.refused(LOAD, refused) if refused else Settled(change=LOAD)
    worker.client.hear(Message(Kind.SETTLED, number, settled.packed()))


# What is dropped


def test_a_model_that_nobody_uses_is_idle_at_once() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        worker.hear(Kind.DROP, 0)
        assert said(worker) == ["idle 0"]
        with pytest.raises(UnknownModel):
            worker.client.editions.card("digits")

    run(test)


def test_a_request_keeps_the_version_that_it_found_until_it_is_answered() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start(card(version=1))
        client = worker.client
        with client.editions.using("digits") as before:
            add(worker, 1, card(version=2))
            worker.hear(Kind.DROP, 0)
            assert said(worker) == []
            assert client.editions.card("digits").key == ("digits", 2)
            deadline = time.monotonic() + HANG_S
            client.refuse_when_full(before, deadline)
            with client.reserve(before, 1, "uint8", deadline) as reserved:
                task = asyncio.create_task(client.infer(before, reserved, deadline))
                (ring,) = await engine.hears_rings(1)
                assert ring.model == 0
                engine.answer(ring)
                await task
            assert said(worker) == []
        assert said(worker) == ["idle 0"]

    run(test)


def test_the_same_version_loaded_anew_is_another_one() -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        add(worker, 1, card())
        worker.hear(Kind.DROP, 0)
        assert said(worker) == ["idle 0"]
        assert [each.key for each in worker.client.editions.cards()] == [("digits", 1)]
        task = worker.task(4)
        (ring,) = await engine.hears_rings(1)
        assert ring.model == 1
        engine.answer(ring)
        assert await task == [8.0]

    run(test)


def test_a_card_that_is_said_again_is_of_the_same_network_and_who_has_the_old_one_goes_on() -> None:
    async def test(worker: Worker) -> None:
        engine, deadline = worker.start(), time.monotonic() + HANG_S
        with worker.client.editions.using("digits") as before:
            add(worker, 0, card())
            with worker.client.editions.using("digits") as after:
                assert after is not before
                for each in (before, after):
                    with worker.client.reserve(each, 1, "uint8", deadline) as reserved:
                        task = asyncio.create_task(worker.client.infer(each, reserved, deadline))
                        (ring,) = await engine.hears_rings(1)
                        assert ring.model == 0
                        engine.answer(ring)
                        await task
        kept = list(worker.client.editions._editions)
        assert kept == [after], "the old card is kept no longer than it is used"
        worker.hear(Kind.DROP, 0)
        assert said(worker) == ["idle 0"]
        assert not worker.client.editions._editions

    run(test)


def test_the_last_of_many_users_makes_it_idle_and_only_once() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        uses = [worker.client.editions.using("digits") for _ in range(3)]
        for use in uses:
            use.__enter__()
        worker.hear(Kind.DROP, 0)
        for use in uses:
            assert said(worker) == []
            use.__exit__(None, None, None)
        assert said(worker) == ["idle 0"]

    run(test)


def test_a_request_that_fails_uses_nothing_any_more() -> None:
    async def test(worker: Worker) -> None:
        worker.start()

        def fail() -> None:
            with worker.client.editions.using("digits"):
                worker.hear(Kind.DROP, 0)
                assert said(worker) == []
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert said(worker) == ["idle 0"]

    run(test)


@pytest.mark.parametrize("end", [Outcome.ANSWERED, Outcome.CANCELLED, Outcome.FAILED])
def test_a_job_whose_client_went_away_uses_its_model_until_the_engine_replies(end: Outcome) -> None:
    async def test(worker: Worker) -> None:
        engine = worker.start()
        task = worker.task(1, 2)
        (ring,) = await engine.hears(Ring)
        task.cancel()
        await engine.hears(Cancel)
        worker.hear(Kind.DROP, 0)
        await turns()
        assert said(worker) == []
        engine.say(Reply(ring.ticket, end, 2))
        await until(lambda: worker.told() == NOTHING)
        assert said(worker) == ["idle 0"]

    run(test)


def test_rows_that_were_reserved_and_never_rung_use_it_until_they_are_given_back() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        reserved = worker.reserve(1)
        worker.hear(Kind.DROP, 0)
        assert said(worker) == []
        reserved.release()
        assert said(worker) == ["idle 0"]

    run(test)


def test_of_an_engine_that_was_lost_in_between_nothing_is_idle() -> None:
    """The next one numbers anew."""

    async def test(worker: Worker) -> None:
        worker.start()
        with worker.client.editions.using("digits") as before:
            worker.hear(Kind.DROP, 0)
            worker.lose()
            worker.start()
            with pytest.raises(NotReady):
                worker.client.reserve(before, 1, "uint8", time.monotonic() + HANG_S)
        assert said(worker) == []
        worker.hear(Kind.DROP, 0)
        assert said(worker) == ["idle 0"]

    run(test)


def test_a_request_while_no_engine_is_there_is_refused_and_uses_nothing() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        worker.lose()
        with worker.client.editions.using("digits") as known:
            with pytest.raises(NotReady):
                worker.client.refuse_when_full(known, time.monotonic() + HANG_S)
            worker.start()
        worker.hear(Kind.DROP, 0)
        assert said(worker) == ["idle 0"]

    run(test)


def test_a_fence_is_sent_back_behind_what_came_before_it() -> None:
    async def test(worker: Worker) -> None:
        worker.start()
        add(worker, 1, card(version=2))
        worker.hear(Kind.DROP, 0)
        worker.hear(Kind.FENCE, 9)
        assert said(worker) == ["idle 0", "fence 9"]

    run(test)


# Errands


def errand(worker: Worker) -> asyncio.Task[None]:
    return asyncio.create_task(worker.client.errands.do(LOAD))


def test_an_errand_returns_when_its_change_is_made_and_not_at_another_s() -> None:
    async def test(worker: Worker) -> None:
        task = errand(worker)
        await turns()
        assert Change.model_validate_json(worker.said[0].text) == LOAD
        assert said(worker) == ["ask 1"]
        settle(worker, 0)
        settle(worker, 2)
        await turns()
        assert not task.done()
        settle(worker, 1)
        await task
        settle(worker, 1)

    run(test)


@pytest.mark.parametrize("error", [LoadRefused, UnknownModel, Draining, EngineFailed])
def test_an_errand_raises_what_its_change_is_refused_for(error: type[FoldserveError]) -> None:
    async def test(worker: Worker) -> None:
        task = errand(worker)
        await turns()
        settle(worker, 1, error("why"))
        with pytest.raises(error, match=r"^why$"):
            await task

    run(test)


def test_whoever_does_not_wait_any_more_harms_nobody() -> None:
    async def test(worker: Worker) -> None:
        gone, stays = errand(worker), errand(worker)
        await turns()
        gone.cancel()
        await turns()
        assert gone.cancelled()
        settle(worker, 1)
        settle(worker, 2)
        await stays

    run(test)


def test_too_many_who_wait_are_refused_and_room_comes_back() -> None:
    async def test(worker: Worker) -> None:
        tasks = [errand(worker) for _ in range(32)]
        await turns()
        with pytest.raises(QueueFull, match=r"^too many changes wait$"):
            await worker.client.errands.do(LOAD)
        assert len(said(worker)) == 32
        tasks[0].cancel()
        await turns()
        tasks.append(errand(worker))
        await turns()
        assert said(worker) == ["ask 33"]
        for number in range(1, 34):
            settle(worker, number)
        await asyncio.gather(*tasks[1:])

    run(test)


def test_a_supervisor_that_hears_nothing_leaves_nobody_waiting() -> None:
    async def test(worker: Worker) -> None:
        def refuse(_: Message) -> None:
            raise BrokenPipeError

        worker.client.errands._tell = refuse
        for _ in range(40):
            with pytest.raises(BrokenPipeError):
                await worker.client.errands.do(LOAD)

    run(test)


def test_the_last_refusal_of_a_model_is_kept_until_it_is_loaded() -> None:
    async def test(worker: Worker) -> None:
        refusals = worker.client.errands.refusals
        settle(worker, 0, LoadRefused("damaged"))
        assert refusals == {"digits": "damaged"}
        settle(worker, 0, LoadRefused("still damaged"))
        assert refusals == {"digits": "still damaged"}
        settle(worker, 0)
        assert refusals == {}

    run(test)


def test_rows_that_cannot_be_accepted_say_nothing_of_what_is_loaded() -> None:
    async def test(worker: Worker) -> None:
        refusals = worker.client.errands.refusals
        settle(worker, 0, LoadRefused("damaged"))
        change = Change(action="accept", model="digits")
        for settled in (Settled(change=change), Settled.refused(change, TooFewRows("3"))):
            worker.client.hear(Message(Kind.SETTLED, 0, settled.packed()))
        assert refusals == {"digits": "damaged"}

    run(test)


def test_of_names_that_nobody_has_no_refusal_is_kept() -> None:
    async def test(worker: Worker) -> None:
        settle(worker, 0, UnknownModel("the store has no model 'x'"))
        assert worker.client.errands.refusals == {}

    run(test)
