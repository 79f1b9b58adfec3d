"""A process that stops is found out and replaced; a service that is paused as a whole just goes on."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from .load import Load, rows
from .server import Process, Server, until
from .tree import Tree, is_stopped
from .watching import is_well, restarts, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .digits import Digits

pytestmark = pytest.mark.e2e

HANG_S = 5
"""More than any process is held up for by what else the machine does."""

LET_GO_S = 0.6


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server that replaces what hangs, soon."""
    with Server.start(workers=2, hang_timeout_s=HANG_S) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def test_service_that_was_paused_as_a_whole_kills_nobody(impatient: Server, digits: Digits) -> None:
    tree = Tree(impatient.process.pid)
    before = tree.all(), restarts(impatient, "engine"), restarts(impatient, "worker")
    for pause_s in (HANG_S - LET_GO_S, HANG_S + 1):
        tree.signal(signal.SIGSTOP)
        time.sleep(pause_s)
        os.kill(tree.supervisor, signal.SIGCONT)
        time.sleep(LET_GO_S)  # it is let go first, and looks around
        tree.signal(signal.SIGCONT)
        with Load(impatient.address, [rows(digits, at, 2) for at in range(20)], 8) as load:
            load.more(100)
        assert [outcome for outcome in load.outcomes if not outcome.is_right] == []
    time.sleep(1)  # as long as several looks at who is alive
    assert (tree.all(), restarts(impatient, "engine"), restarts(impatient, "worker")) == before
    assert "silent" not in impatient.log


def test_engine_that_hangs_is_not_ready_and_is_replaced(impatient: Server, digits: Digits) -> None:
    tree, before = Tree(impatient.process.pid), restarts(impatient, "engine")
    with Load(impatient.address, [rows(digits, at, 2) for at in range(20)], 8) as load:
        load.more(100)
        victim, workers = tree.engine, tree.workers(2)
        os.kill(victim, signal.SIGSTOP)
        until(lambda: is_stopped(victim))
        until(lambda: status(impatient, "/readyz") == 503)
        assert status(impatient, "/livez") == 200
        until(lambda: status(impatient, "/readyz") == 200)
        load.more(100)
    assert {outcome.status for outcome in load.outcomes} == {200, 503}
    assert all(outcome.is_right for outcome in load.outcomes if outcome.status == 200)
    assert (tree.engine != victim, tree.workers(2)) == (True, workers)
    assert f"the engine has been silent for {HANG_S} s" in impatient.log
    assert restarts(impatient, "engine") == before + 1
    until(lambda: is_well(impatient))


def test_worker_that_hangs_is_replaced_and_the_other_one_serves_meanwhile(
    impatient: Server, digits: Digits
) -> None:
    tree, before = Tree(impatient.process.pid), restarts(impatient, "worker")
    with Load(impatient.address, [rows(digits, at, 2) for at in range(20)], 16) as load:
        load.more(200)
        victim, other = tree.workers(2)
        os.kill(victim, signal.SIGSTOP)
        until(lambda: is_stopped(victim))
        load.more(200)  # by the other one
        until(lambda: victim not in tree.children("web"))
        assert other in tree.workers(2)
        load.more(200)
    assert [outcome for outcome in load.outcomes if outcome.status and not outcome.is_right] == []
    assert 0 < sum(not outcome.status for outcome in load.outcomes) < 16
    until(lambda: is_well(impatient))
    assert restarts(impatient, "worker") == before + 1


def test_worker_that_hangs_before_it_is_up_is_replaced() -> None:
    with Process("serve", port=0, threads=1, start_timeout_s=20, max_restarts=100) as process:
        victim = Tree(process.pid).workers(1)[0]
        os.kill(victim, signal.SIGSTOP)
        with Server(process) as server:
            assert "worker 0 has not come up in 20 s" in server.log
            assert Tree(process.pid).workers(1) != [victim]
            assert server.stop() == 0, server.log


def test_engine_that_hangs_before_it_loads_is_replaced() -> None:
    with Process("serve", port=0, threads=1, start_timeout_s=20, max_restarts=100) as process:
        victim = Tree(process.pid).stall_engine()
        with Server(process) as server:
            assert "the engine has not come up in 20 s" in server.log
            assert Tree(process.pid).engine != victim
            assert server.stop() == 0, server.log
