"""The link: what a worker said is there or not, and what it is told goes when it can; nobody waits."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from service.engine import arena as arenas
from service.engine.arena import Arena
from service.engine.doorbell import Cancel, MalformedRecord, Outcome, Replies, Reply, Ring
from service.engine.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

RING = Ring(1, 0, 0, 0, 1, 1.0, 2.0)


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    descriptor = arenas.create(1)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.settimeout(60)
    link = Link(3, ours, Arena(descriptor))
    os.close(descriptor)
    yield link, theirs
    link.close()
    theirs.close()


Ends = tuple[Link, socket.socket]


def test_records_are_received_as_they_come(ends: Ends) -> None:
    link, worker = ends
    assert repr(link) == "<Link to worker 3>"
    assert list(link.receive() or ()) == []
    worker.sendall(RING.packed() + Cancel(1).packed() + RING.packed()[:7])
    assert link.receive() == [RING, Cancel(1)]
    assert list(link.receive() or ()) == []
    worker.sendall(RING.packed()[7:])
    assert link.receive() == [RING]


def test_a_worker_that_hung_up_is_gone_though_half_a_record_was_there(ends: Ends) -> None:
    link, worker = ends
    worker.sendall(RING.packed()[:7])
    assert link.receive() == []
    worker.close()
    assert link.receive() is None
    assert link.receive() is None


def test_a_worker_that_died_with_replies_unread_is_gone(ends: Ends) -> None:
    link, worker = ends
    link.reply(Reply(1, Outcome.LATE))
    assert link.flush()
    worker.close()
    assert link.receive() is None


def test_what_is_no_record_is_malformed(ends: Ends) -> None:
    link, worker = ends
    worker.sendall(b"GET / HTTP/1.1\r\nHost: foldserve\r\nAccept: */*\r\n\r\n")
    with pytest.raises(MalformedRecord):
        link.receive()


def test_replies_go_together_with_the_next_flush(ends: Ends) -> None:
    link, worker = ends
    said = [Reply(ticket, Outcome.ANSWERED, 4, 0.5, 0.25) for ticket in range(5)]
    for reply in said:
        link.reply(reply)
    worker.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.recv(1)
    assert link.flush()
    assert list(Replies().records(worker.recv(4096))) == said


def test_replies_that_nobody_reads_stay_until_somebody_does(ends: Ends) -> None:
    link, worker = ends
    said = [Reply(ticket, Outcome.ANSWERED) for ticket in range(4000)]
    for reply in said:
        link.reply(reply)
    assert not link.flush()
    assert link.unsent > 0
    inbox = Replies()
    come: list[Reply] = []
    while len(come) < len(said):
        come += inbox.records(worker.recv(1000))
        link.flush()
    assert come == said
    assert link.unsent == 0


def test_replies_to_a_worker_that_is_gone_go_nowhere(ends: Ends) -> None:
    link, worker = ends
    worker.close()
    link.reply(Reply(1, Outcome.ANSWERED))
    assert link.flush()
    assert link.unsent == 0
