"""Signals end a service in order, whatever it is doing at the time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from .load import Load, rows
from .server import Process, Server, until
from .tree import Tree, are_gone, kill
from .wire import head

if TYPE_CHECKING:
    from pathlib import Path

    from .digits import Digits

pytestmark = pytest.mark.e2e

# Only a drain that waits for somebody who was not told takes so long.
NEVER_S = 3600


def assert_ended(process: Process, pids: list[int], counts: Path, expected: int) -> None:
    assert process.wait() == expected, process.log
    assert are_gone(pids)
    assert not counts.exists()
    assert "Traceback" not in process.log


@pytest.mark.parametrize("part", ["engine", "web"])
@pytest.mark.parametrize("replaced", [False, True], ids=["dead", "being replaced"])
def test_signal_while_a_process_is_replaced_ends_the_service_in_order(part: str, *, replaced: bool) -> None:
    with Process("serve", port=0, workers=2, drain_timeout_s=NEVER_S) as process:
        tree = Tree(process.pid)
        tree.stall_engine()
        counts = tree.counts()
        pids = {*tree.workers(2), tree.engine}
        victim = tree.engine if part == "engine" else tree.workers(2)[0]
        kill(victim)
        process.wait_for("ended with status -9")
        if replaced:
            until(lambda: len(tree.children()) == 3)
        process.signal(signal.SIGTERM)
        while not process.has_ended:
            pids |= set(tree.children())
        assert_ended(process, list(pids), counts, 0)


def test_signal_to_every_process_loses_no_more_than_one_to_the_supervisor(digits: Digits) -> None:
    """As systemd sends it."""
    with Server.start(workers=2, drain_timeout_s=NEVER_S) as server:
        tree = Tree(server.process.pid)
        pids, counts = tree.children(), tree.counts()
        with Load(server.address, [rows(digits, at, 2) for at in range(20)], 16) as load:
            load.more(200)
            for number in (signal.SIGTERM, signal.SIGINT):
                for pid in pids:
                    os.kill(pid, number)
            load.more(200)
            for pid in tree.all():
                os.kill(pid, signal.SIGTERM)
            load.end()
        assert [outcome for outcome in load.outcomes if not outcome.is_right] == []
        assert_ended(server.process, pids, counts, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_every_process_at_once(digits: Digits, number: int) -> None:
    with Server.start(workers=2, drain_timeout_s=NEVER_S, body_timeout_s=NEVER_S) as server:
        tree = Tree(server.process.pid)
        pids, counts = tree.children(), tree.counts()
        with server.connect() as client:
            client.sendall(head("Content-Length: 5"))
            assert server.get("/livez").status_code == 200
            server.process.signal(number)
            until(server.refuses)
            assert not server.process.has_ended
            server.process.signal(number)
            assert_ended(server.process, pids, counts, 1)
