"""The switchboard: workers that lie are dismissed alone, the dead leave nothing, the deaf hold nobody up."""

from __future__ import annotations

import gc
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.batching.policy import Limits
from service.batching.queue import Queue
from service.engine.arena import SLOT_BYTES
from service.engine.control import Control, Kind, Message
from service.engine.doorbell import Cancel, Outcome, Ring
from service.engine.switchboard import Switchboard
from tests.engine.cards import facts
from tests.engine.peer import Peer, hears, is_quiet, mapped_arenas, open_descriptors, random_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.engine.linked_job import LinkedJob

NEVER = 1e18  # seconds


class House:
    """A switchboard with a queue of two models, and the supervisor's end of its control socket."""

    def __init__(self) -> None:
        self.supervisor, theirs = Control.pair()
        self._theirs = Control(theirs)
        self.queue: Queue[LinkedJob] = Queue(Limits(1 << 20, 0.0))
        models = {0: facts("digits", 1), 1: facts("digits", 2)}
        for model in models:
            self.queue.admit(model, 64)
        self.obeyed: list[Message] = []
        self.board = Switchboard(self._theirs, self.queue, models, self.obeyed.append)
        self.peers: list[Peer] = []

    def peer(self, **more: Any) -> Peer:
        """One more worker, with its link."""
        peer = Peer.linked(self.supervisor, len(self.peers), **more)
        self.peers.append(peer)
        self.board.hear(0.0)
        return peer

    def hear(self) -> None:
        """Everything that has come, and send what is to be sent, as the engine does between two batches."""
        for _ in range(3):
            self.board.flush()
            self.board.hear(0.0)
        self.board.flush()

    def compute(self) -> int:
        """Answer everything that waits with twice its first pixels; how many jobs that was."""
        count = 0
        while (decision := self.queue.next(NEVER / 2)).run or decision.dropped:
            for job in decision.dropped:
                self.board.reply(job, Outcome.LATE)
            for job, start, stop in decision.run:
                job.outputs[start:stop] = job.inputs[start:stop].reshape(stop - start, -1)[:, :10] * 2.0
                if stop == job.rows:
                    self.board.reply(job, Outcome.ANSWERED)
                    count += 1
        return count

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.board.hear(0.0)
        self.supervisor.close()
        self._theirs.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def ring(peer: Peer, rows: int = 1, seed: int = 0, **more: Any) -> int:
    return peer.ring(random_pixels(rows, seed), patience_s=NEVER, **more)


def ring_all(peer: Peer, count: int) -> list[int]:
    """Jobs of a row each, rung for at once."""
    rings = [peer.lay(random_pixels(1, seed), patience_s=NEVER) for seed in range(count)]
    peer.say(*rings)
    return [each.ticket for each in rings]


def require_answer(peer: Peer, ticket: int) -> None:
    outputs, _ = peer.answer(ticket)
    laid = peer.laid[ticket].inputs
    np.testing.assert_array_equal(outputs, laid.reshape(len(laid), -1)[:, :10] * 2.0)


# What workers ring


def test_what_workers_ring_waits_and_is_answered_where_it_came_from(house: House) -> None:
    one, other = house.peer(), house.peer()
    tickets = [(peer, ring(peer, rows, seed=rows)) for rows in (1, 3) for peer in (one, other)]
    house.hear()
    assert repr(house.queue) == "<Queue open, 4 jobs, 8 rows waiting>"
    assert house.compute() == 4
    house.hear()
    for peer, ticket in tickets:
        require_answer(peer, ticket)


def test_both_dtypes_and_all_models_are_taken(house: House) -> None:
    peer = house.peer()
    floats = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)
    tickets = [peer.ring(floats, patience_s=NEVER, model=1), ring(peer, model=0), ring(peer, model=1)]
    house.hear()
    lanes = sorted({(job.lane.model, job.lane.dtype) for job, _, _ in house.queue.next(NEVER / 2).run})
    assert len(lanes) == 1, "a batch is of one lane"
    assert house.compute() == 2
    assert len(tickets) == 3


def test_a_cancelled_job_leaves_the_queue_and_is_replied_to_once(house: House) -> None:
    peer = house.peer()
    gone, stays = ring(peer), ring(peer)
    peer.cancel(gone)
    house.hear()
    assert repr(house.queue) == "<Queue open, 1 jobs, 1 rows waiting>"
    peer.cancel(gone)
    house.compute()
    house.hear()
    assert peer.outcome(gone) is Outcome.CANCELLED
    require_answer(peer, stays)
    assert peer.is_silent()


def test_a_cancel_that_crosses_its_answer_is_no_mistake(house: House) -> None:
    peer = house.peer()
    ticket = ring(peer)
    house.hear()
    house.compute()
    peer.cancel(ticket)
    peer.cancel(12345)
    house.hear()
    require_answer(peer, ticket)
    again = ring(peer)
    house.hear()
    house.compute()
    house.hear()
    require_answer(peer, again)
    assert is_quiet(house.supervisor)


# Workers that lie

GOOD = Ring(77, 0, 0, 0, 1, 0.0, NEVER)
HOSTILE = {
    "a model that is not there": GOOD._replace(model=2).packed(),
    "the largest model": GOOD._replace(model=2**32 - 1).packed(),
    "a dtype that is not there": GOOD._replace(dtype=2).packed(),
    "no rows": GOOD._replace(rows=0).packed(),
    "the most rows": GOOD._replace(rows=2**32 - 1).packed(),
    "rows whose bytes overflow 32 bits": GOOD._replace(rows=2**26).packed(),
    "a slot behind the end": GOOD._replace(first_slot=512).packed(),
    "the last slot, where two are needed": GOOD._replace(first_slot=511).packed(),
    "the largest slot": GOOD._replace(first_slot=2**32 - 1).packed(),
    "a ticket twice": GOOD.packed() * 2,
    "no time of arrival": GOOD._replace(arrived=float("nan")).packed(),
    "no deadline": GOOD._replace(deadline=float("nan")).packed(),
    "an endless deadline": GOOD._replace(deadline=float("inf")).packed(),
    "another version": struct.pack("<H", 1) + GOOD.packed()[2:],
    "a kind that is not there": GOOD.packed()[:2] + b"\x09" + GOOD.packed()[3:],
    "a reply": b"\x02\x00\x03" + bytes(45),
    "HTTP": b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: foldserve\r\n\r\n",
    "zeros": bytes(4096),
    "a good job before a bad one": GOOD.packed() + GOOD._replace(ticket=78, model=9).packed(),
    "a good job, half a record and more": GOOD.packed() + GOOD.packed()[:20] + b"\xff" * 76,
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_worker_that_breaks_the_protocol_is_dismissed_alone(house: House, said: bytes) -> None:
    good, bad, better = house.peer(), house.peer(), house.peer()
    waiting = [(good, ring(good)), (better, ring(better, 3))]
    ring(bad, 5)
    house.hear()
    bad.say(said)
    house.hear()
    assert hears(house.supervisor) == Message(Kind.DISMISSED, 1)
    assert bad.is_hung_up_on()
    assert repr(house.queue) == "<Queue open, 2 jobs, 4 rows waiting>", "its jobs are dropped"
    waiting.append((good, ring(good, 2)))
    house.hear()
    house.compute()
    house.hear()
    for peer, ticket in waiting:
        require_answer(peer, ticket)
    assert is_quiet(house.supervisor), "nobody else is dismissed"


@settings(deadline=None, max_examples=150, suppress_health_check=[*HealthCheck])
@given(st.lists(st.one_of(st.binary(max_size=200), st.just(GOOD.packed())), max_size=6))
@example([b"\x01\x00\x01" + b"\xff" * 37])
def test_whatever_a_worker_says_the_others_are_answered(said: list[bytes]) -> None:
    house = House()
    try:
        good, bad = house.peer(), house.peer()
        ticket = ring(good)
        for piece in said:
            try:
                bad.say(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            house.hear()
        house.hear()
        house.compute()
        house.hear()
        require_answer(good, ticket)
    finally:
        house.close()


def test_times_out_of_all_proportion_leave_the_others_in_order(house: House) -> None:
    bad, good = house.peer(), house.peer()
    for ticket, arrived in enumerate((-1e308, 1e308, 5e-324)):
        bad.say(GOOD._replace(ticket=ticket, arrived=arrived))
    tickets = [ring(good, seed=seed) for seed in range(3)]
    house.hear()
    house.compute()
    house.hear()
    for ticket in tickets:
        require_answer(good, ticket)


def test_more_jobs_than_there_are_slots_are_a_lie(house: House) -> None:
    """Every job takes two slots at least: whoever rings for more rings for the same ones again."""
    bad = house.peer(slots=16)
    for ticket in range(16):
        bad.say(GOOD._replace(ticket=ticket))
    house.hear()
    assert is_quiet(house.supervisor)
    bad.say(GOOD._replace(ticket=16))
    house.hear()
    assert hears(house.supervisor) == Message(Kind.DISMISSED, 0)
    assert repr(house.queue) == "<Queue open, 0 jobs, 0 rows waiting>"


def test_a_worker_that_rings_on_and_reads_nothing_takes_no_memory_without_end(house: House) -> None:
    bad = house.peer(slots=16, buffer=4096)
    bad.end.settimeout(0.0)
    for ticket in range(100_000):
        try:
            bad.say(GOOD._replace(ticket=ticket), Cancel(ticket))
        except (BrokenPipeError, ConnectionResetError):
            break
        house.hear()
    else:
        pytest.fail("it was never dismissed")
    assert hears(house.supervisor) == Message(Kind.DISMISSED, 0)


# Workers that are gone


@pytest.mark.parametrize("last", [b"", GOOD.packed()[:13]], ids=["between records", "within a record"])
def test_a_worker_that_is_gone_leaves_no_job_and_no_memory(house: House, last: bytes) -> None:
    gc.collect()
    arenas, descriptors = mapped_arenas(), open_descriptors()
    stays, dies = house.peer(), house.peer()
    tickets = [ring(stays, 2)]
    for seed in range(4):
        ring(dies, 3, seed)
    house.hear()
    assert mapped_arenas() == arenas + 4, "both arenas, on both sides"
    assert repr(house.queue) == "<Queue open, 5 jobs, 14 rows waiting>"
    dies.say(last)
    dies.close()
    dies.laid.clear()
    del dies.arena
    house.hear()
    assert repr(house.queue) == "<Queue open, 1 jobs, 2 rows waiting>"
    assert mapped_arenas() == arenas + 2
    assert open_descriptors() == descriptors + 4, "of the other: its sockets, and what keeps each mapping"
    assert is_quiet(house.supervisor), "to die is not to lie"
    house.compute()
    house.hear()
    require_answer(stays, tickets[0])


def test_what_was_computed_for_a_worker_that_is_gone_goes_nowhere(house: House) -> None:
    gc.collect()
    arenas = mapped_arenas()
    dies = house.peer()
    ring(dies, 3)
    house.hear()
    decision = house.queue.next(NEVER / 2)
    dies.close()
    dies.laid.clear()
    del dies.arena
    house.hear()
    for job, _, _ in decision.run:
        job.outputs[:] = 1.0  # its memory is there as long as anybody writes
        house.board.reply(job, Outcome.ANSWERED)
    del decision, job
    house.hear()
    assert mapped_arenas() == arenas


def test_a_worker_may_die_with_replies_unread(house: House) -> None:
    dies, stays = house.peer(buffer=4096), house.peer()
    ring_all(dies, 200)
    house.hear()
    house.compute()
    house.hear()
    ticket = ring(stays)
    dies.close()
    house.hear()
    house.compute()
    house.hear()
    require_answer(stays, ticket)


def test_a_hundred_workers_come_and_go_and_leave_nothing(house: House) -> None:
    gc.collect()
    arenas, descriptors = mapped_arenas(), open_descriptors()
    for _ in range(100):
        peer = house.peer(slots=8)
        ring(peer)
        house.hear()
        peer.close()
        house.hear()
        house.peers.clear()
        del peer
    assert (mapped_arenas(), open_descriptors()) == (arenas, descriptors)
    assert repr(house.queue) == "<Queue open, 0 jobs, 0 rows waiting>"


def test_a_replaced_worker_has_the_same_number_and_another_link(house: House) -> None:
    first = Peer.linked(house.supervisor, 0)
    ring(first)
    house.hear()
    second = Peer.linked(house.supervisor, 0)
    ticket = ring(second, 2)
    first.close()
    house.hear()
    assert repr(house.queue) == "<Queue open, 1 jobs, 2 rows waiting>"
    house.compute()
    house.hear()
    require_answer(second, ticket)
    second.close()


# Workers that do not read


def test_a_worker_that_reads_nothing_holds_nobody_up_and_gets_everything_once_it_reads(house: House) -> None:
    deaf, other = house.peer(slots=2048, buffer=4096), house.peer()
    tickets = ring_all(deaf, 1000)
    for number in range(20):
        house.hear()
        house.compute()
        ticket = ring(other, 2, number)
        house.hear()
        house.compute()
        house.hear()
        require_answer(other, ticket)
    assert is_quiet(house.supervisor)
    deaf.end.settimeout(0.0)
    for ticket in tickets:
        while True:
            try:
                require_answer(deaf, ticket)
                break
            except BlockingIOError:  # it has read all that its socket held; the rest follows
                house.hear()
    assert deaf.is_silent()


# The end


def test_told_to_drain_it_stops_and_what_waits_runs_at_once(house: House) -> None:
    peer = house.peer()
    ring(peer)
    house.supervisor.send(Message(Kind.DRAIN))
    house.hear()
    assert repr(house.queue) == "<Queue closed, 1 jobs, 1 rows waiting>"
    house.compute()
    house.hear()
    assert not peer.is_silent()


def test_told_to_drain_it_is_done_when_the_last_worker_has_hung_up(house: House) -> None:
    first, second = house.peer(), house.peer()
    house.supervisor.send(Message(Kind.DRAIN))
    house.hear()
    first.close()
    house.hear()
    assert not house.board.is_done
    ring(second)  # of a body that was on its way
    house.hear()
    house.compute()
    house.hear()
    assert not second.is_silent()
    second.close()
    house.hear()
    assert house.board.is_done


def test_a_supervisor_that_is_gone_is_an_end_too(house: House) -> None:
    assert not house.board.is_done
    house.supervisor.close()
    house.hear()
    assert house.board.is_done


def test_it_sleeps_until_somebody_rings(house: House) -> None:
    peer = house.peer()
    ring(peer)
    house.board.hear(3600.0)
    assert house.queue.waiting_rows == 1


def test_what_is_said_of_others_is_not_for_it(house: House) -> None:
    """Its descriptors are closed all the same."""
    before = open_descriptors()
    file = os.memfd_create("test")
    house.supervisor.send(Message(Kind.CARD, 0, b"", (file,)))
    os.close(file)
    house.hear()
    assert open_descriptors() == before


def test_an_arena_holds_whole_pages() -> None:
    assert SLOT_BYTES % os.sysconf("SC_PAGESIZE") == 0
