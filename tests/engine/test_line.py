"""The line: every run comes back, whatever becomes of its job, and who waits is told."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvloop

from service.engine import arena as arenas
from service.engine.arena import Arena
from service.engine.doorbell import Cancel, Outcome, Reply, Ring, Rings
from service.engine.line import Line
from service.errors import DeadlinePassed, EngineFailed, InputTooLarge
from tests.engine.fake_engine import FakeEngine, turns, until
from tests.engine.peer import HANG_S, mapped_arenas, open_descriptors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.batching.job import Answer
    from service.engine.run import Run

SLOTS = 64


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Line, FakeEngine], Awaitable[None]]], None]:
    """Runs a test with a line; afterwards all slots are back, nothing is left, nothing went wrong aside."""

    def running(test: Callable[[Line, FakeEngine], Awaitable[None]], buffer: int = 0) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            descriptor, (ours, theirs) = arenas.create(SLOTS), socket.socketpair()
            if buffer:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            line, engine = (
                Line(ours, Arena(descriptor)),
                FakeEngine(theirs, Arena(descriptor), row=4, answer=4),
            )
            os.close(descriptor)
            await test(line, engine)
            engine.hang_up()
            await asyncio.wait_for(line.gone.wait(), HANG_S)
            await turns()
            assert repr(line.slots) == f"<Slots 0 of {SLOTS} taken>"

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(turns())  # the first loop opens what later ones share
        gc.collect()
        before = open_descriptors(), mapped_arenas()
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())
        gc.collect()  # an exception and the frame that raised it hold each other
        assert complaints == []
        assert (open_descriptors(), mapped_arenas()) == before

    return running


def a_run(line: Line, *values: int) -> Run:
    run = line.take(len(values), "uint8", [4], [4])
    assert run is not None
    run.inputs[:] = np.array(values, "uint8").reshape(-1, 1)
    return run


async def inferred(line: Line, *values: int, patience_s: float = HANG_S) -> list[list[float]]:
    """As a route does it: reserve, write, infer, read, leave."""
    with a_run(line, *values) as run:
        answer = await line.infer(run, 0, time.monotonic() + patience_s)
        rows: list[list[float]] = answer.rows.tolist()
        return rows


def task(line: Line, *values: int, patience_s: float = HANG_S) -> asyncio.Task[list[list[float]]]:
    return asyncio.create_task(inferred(line, *values, patience_s=patience_s))


def doubled(*values: int) -> list[list[float]]:
    return [[2.0 * value] * 4 for value in values]


# Answers


def test_a_job_is_answered_in_its_own_run(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with a_run(line, 1, 2, 3) as reserved:
            computing = asyncio.create_task(line.infer(reserved, 7, time.monotonic() + HANG_S))
            (ring,) = await engine.hears_rings(1)
            assert (ring.model, ring.dtype, ring.first_slot, ring.rows) == (7, 0, reserved.first_slot, 3)
            assert ring.arrived <= time.monotonic() < ring.deadline
            engine.answer(ring)
            answer: Answer = await computing
            assert answer.rows.tolist() == doubled(1, 2, 3)
            assert (answer.queue_s, answer.compute_s, answer.batch_rows) == (0.25, 0.5, 3)
            assert line.slots.taken == 2
        assert line.slots.taken == 0

    run(test)


def test_what_is_rung_in_one_turn_of_the_loop_goes_together(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        tasks = [task(line, number) for number in range(20)]
        await turns(3)
        received = engine.end.recv(1 << 16)
        assert len(received) == 20 * 48
        engine.answer(*(each for each in Rings().records(received) if isinstance(each, Ring)))
        assert await asyncio.gather(*tasks) == [doubled(number) for number in range(20)]

    run(test)


def test_answers_may_come_in_any_order_and_in_pieces(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        tasks = [task(line, number) for number in range(5)]
        rings = await engine.hears_rings(5)
        assert len({ring.ticket for ring in rings}) == 5
        engine.answer(*reversed(rings[2:]))
        assert await asyncio.gather(*tasks[2:]) == [doubled(2), doubled(3), doubled(4)]
        said = b"".join(Reply(ring.ticket, Outcome.FAILED).packed() for ring in rings[:2])
        for start in range(0, len(said), 5):
            engine.say(said[start : start + 5])
            await turns()
        outcomes = await asyncio.gather(*tasks[:2], return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineFailed, EngineFailed]

    run(test)


@pytest.mark.parametrize(
    ("outcome", "error"), [(Outcome.FAILED, EngineFailed), (Outcome.LATE, DeadlinePassed)]
)
def test_a_job_without_an_answer_raises_and_its_run_comes_back(
    run: Any, outcome: Outcome, error: type[Exception]
) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        waiting = task(line, 1)
        (ring,) = await engine.hears_rings(1)
        engine.say(Reply(ring.ticket, outcome))
        with pytest.raises(error):
            await waiting
        assert line.slots.taken == 0

    run(test)


def test_rings_that_the_engine_does_not_read_wait_here_and_hold_nothing_up(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        engine.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            tasks = [task(line, number) for number in range(32)]
            await turns()
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while line.slots.taken:
                engine.say(*(Reply(each.ticket, Outcome.CANCELLED) for each in await engine.hears(Ring)))
                await turns()
                engine.heard = [each for each in engine.heard if isinstance(each, Ring)]
        assert line.slots.taken == 0

    run(test, buffer=4096)


# Reserving


def test_rows_for_which_there_is_no_room_now_get_none_and_later_some(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        all_of_it = line.take(SLOTS // 2 * 1024, "uint8", [4], [1])
        assert all_of_it is not None
        assert line.take(1, "uint8", [4], [4]) is None
        all_of_it.release()
        a_run(line, 1).release()

    run(test)


def test_rows_for_which_there_is_never_room_are_too_many(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with pytest.raises(InputTooLarge, match=r"^1 rows need 66 slots of memory, of which there are 64$"):
            line.take(1, "uint8", [65 * 4096], [4])
        with pytest.raises(InputTooLarge):
            line.take(2**40, "float32", [3, 224, 224], [1000])

    run(test)


def test_rows_and_answers_lie_apart(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with a_run(line, 1, 2) as one, a_run(line, 3) as other:
            places = [array.ctypes.data for each in (one, other) for array in (each.inputs, each.outputs)]
            assert [place - places[0] for place in places] == [0, 4096, 8192, 12288]
            one.outputs[:] = 5.0
            assert one.inputs.tolist() == [[1] * 4, [2] * 4]
            assert other.inputs.tolist() == [[3] * 4]

    run(test)


# Cancelling, and deadlines


def test_cancelled_before_the_ring_went_out_both_go_and_the_run_comes_back_with_the_reply(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        gone = task(line, 1)
        await asyncio.sleep(0)  # it has rung; the loop has not sent that yet
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        ring, cancel = await engine.hears(Ring, Cancel)
        assert ring.ticket == cancel.ticket
        assert line.slots.taken == 2, "the engine may be writing"
        engine.say(Reply(ring.ticket, Outcome.CANCELLED))
        await until(lambda: not line.slots.taken)

    run(test)


def test_cancelled_before_it_began_nothing_is_said_at_all(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        gone = task(line, 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await turns()
        with pytest.raises(BlockingIOError):
            engine.end.recv(1)

    run(test)


def test_cancelled_after_the_ring_the_run_is_the_engine_s_until_it_replies(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        gone, stays = task(line, 1), task(line, 2)
        rings = await engine.hears_rings(2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await engine.hears(Cancel) == [Cancel(rings[0].ticket)]
        assert line.slots.taken == 4
        engine.answer(*rings)  # it was computing already: to reply is right, nobody reads it
        assert await stays == doubled(2)
        assert line.slots.taken == 0

    run(test)


def test_cancelled_as_its_answer_comes_nothing_more_is_said(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        gone = task(line, 1)
        (ring,) = await engine.hears_rings(1)
        engine.answer(ring)
        while line.slots.taken and not gone.done():
            line._hear()  # the reply is there; who waits for it has not run yet
            gone.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await gone
        await turns()
        with pytest.raises(BlockingIOError):
            engine.end.recv(1)

    run(test)


def test_at_its_deadline_a_caller_goes_and_its_run_comes_back_with_the_late_reply(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with pytest.raises(DeadlinePassed):
            await inferred(line, 1, patience_s=0.02)
        ring, _ = await engine.hears(Ring, Cancel)
        assert line.slots.taken == 2
        engine.say(Reply(ring.ticket, Outcome.LATE))
        await until(lambda: not line.slots.taken)

    run(test)


@pytest.mark.parametrize("patience_s", [0.0, -1.0])
def test_no_time_at_all_is_a_deadline_passed(run: Any, patience_s: float) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with pytest.raises(DeadlinePassed):
            await inferred(line, 1, patience_s=patience_s)
        ring, cancel = await engine.hears(Ring, Cancel)
        assert ring.deadline <= time.monotonic()
        engine.say(Reply(cancel.ticket, Outcome.LATE))
        await until(lambda: not line.slots.taken)

    run(test)


def test_a_thread_that_still_writes_keeps_the_run_though_all_others_let_go(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with a_run(line, 1) as reserved:
            reserved.hold()
        assert line.slots.taken == 2
        reserved.release()
        assert line.slots.taken == 0

    run(test)


# The engine's end


def test_when_the_engine_hangs_up_everybody_who_waits_hears_at_once_and_all_comes_back(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        tasks = [task(line, number) for number in range(8)]
        rings = await engine.hears_rings(8)
        tasks[0].cancel()
        engine.answer(rings[1])
        assert await tasks[1] == doubled(1)
        engine.hang_up()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks[2:], return_exceptions=True), HANG_S)
        assert [repr(outcome) for outcome in outcomes] == ["EngineFailed('the engine stopped')"] * 6
        assert tasks[0].cancelled()
        assert line.slots.taken == 0

    run(test)


def test_replies_that_came_before_the_end_count(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        answered, lost = task(line, 1), task(line, 2)
        rings = await engine.hears_rings(2)
        engine.answer(rings[0])
        engine.hang_up()
        assert await answered == doubled(1)
        with pytest.raises(EngineFailed, match=r"^the engine stopped$"):
            await lost

    run(test)


def test_a_run_that_was_reserved_before_the_end_is_refused_after_it_and_comes_back(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        with a_run(line, 1) as reserved:
            engine.hang_up()
            await asyncio.wait_for(line.gone.wait(), HANG_S)
            with pytest.raises(EngineFailed, match=r"^the engine stopped$"):
                await line.infer(reserved, 0, time.monotonic() + HANG_S)
        assert line.slots.taken == 0

    run(test)


def test_who_rings_an_engine_that_is_gone_hears_so(run: Any) -> None:
    """Before the loop has seen the end: to send finds it out, or to read."""

    async def test(line: Line, engine: FakeEngine) -> None:
        engine.hang_up()
        with pytest.raises(EngineFailed, match=r"^the engine stopped$"):
            await asyncio.wait_for(inferred(line, 1), HANG_S)
        assert line.gone.is_set()

    run(test)


def test_who_is_cancelled_as_the_engine_goes_leaves_no_complaint(run: Any) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        gone = task(line, 1)
        await engine.hears_rings(1)
        line.close()
        gone.cancel()
        with pytest.raises((asyncio.CancelledError, EngineFailed)):
            await gone
        line.close()

    run(test)


@pytest.mark.parametrize(
    "said",
    [
        *(b"\xff" * 32, bytes(32), Reply(0, Outcome.ANSWERED).packed()[:2] + b"\x09" + bytes(29)),
        *(Reply(99, Outcome.ANSWERED).packed(), Reply(0, Outcome.ANSWERED).packed() * 2),
    ],
    ids=["garbage", "zeros", "no outcome", "a ticket that nobody has", "a ticket twice"],
)
def test_an_engine_that_does_not_keep_to_the_protocol_is_hung_up_on(run: Any, said: Sequence[Any]) -> None:
    async def test(line: Line, engine: FakeEngine) -> None:
        waiting = [task(line, 1), task(line, 2)]
        await engine.hears_rings(2)
        engine.say(bytes(said))
        await asyncio.wait_for(line.gone.wait(), HANG_S)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[1], EngineFailed)
        assert line.slots.taken == 0

    run(test)
