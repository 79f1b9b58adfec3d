"""A killed process is replaced; what it held is answered or closed, and nothing else is disturbed."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from .load import Load, rows
from .server import Process, Server, free_port, until
from .stores import copied
from .tree import Tree, are_gone, is_stopped, kill
from .watching import counts_back, is_well, restarts, scrape, status
from .wire import reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .digits import Digits

log = logging.getLogger(__name__)

pytestmark = pytest.mark.e2e

CONNECTIONS = 16


@pytest.fixture(scope="module")
def pair() -> Iterator[Server]:
    """A server of two workers, of which a test may kill what it likes, as long as it is replaced."""
    with Server.start(workers=2) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def clients_of(load: Load) -> set[int]:
    """Those that were answered once at least."""
    return {outcome.client for outcome in load.outcomes}


def test_killed_worker_takes_only_its_own_connections_with_it(pair: Server, digits: Digits) -> None:
    tree, before, went_back = Tree(pair.process.pid), restarts(pair, "worker"), list[str]()
    with Load(pair.address, [rows(digits, at, 3) for at in range(20)], CONNECTIONS) as load:
        load.more(10 * CONNECTIONS)
        victim, other = tree.workers(2)
        until(lambda: len(clients_of(load)) == CONNECTIONS)  # one worker may be much quicker than the other
        clients = clients_of(load)
        kill(victim)
        last = scrape(pair)
        while last["foldserve_restarts_total", "worker"] == before or last["foldserve_workers",] < 2:
            now = scrape(pair)
            went_back += counts_back(last, now)
            last = now
        assert other in tree.workers(2)
        assert victim not in tree.workers(2)
        load.more(10 * CONNECTIONS)
    closed = [outcome for outcome in load.outcomes if not outcome.status]
    assert 0 < len(closed) < CONNECTIONS
    assert {outcome.client for outcome in closed} <= clients, "a connection to the replacement was closed"
    assert [outcome for outcome in load.outcomes if outcome.status and not outcome.is_right] == []
    assert went_back == []
    until(lambda: is_well(pair))
    assert restarts(pair, "worker") == before + 1


def test_connections_that_waited_for_a_dead_worker_are_answered_by_its_replacement(
    pair: Server, digits: Digits
) -> None:
    tree = Tree(pair.process.pid)
    victim = tree.workers(2)[0]
    os.kill(victim, signal.SIGSTOP)
    until(lambda: is_stopped(victim))  # what it accepted before would die with it
    asks = [rows(digits, at, 2) for at in range(16)]
    clients = [pair.connect() for _ in asks]
    for client, ask in zip(clients, asks, strict=True):
        client.sendall(ask.request)
    waiting = [client for client in clients if tree.owner(client) is None]
    assert waiting, "16 of 16 connections came to the other worker"
    kill(victim)
    for client, ask in zip(clients, asks, strict=True):
        with client:
            answer = reply(client)
            assert answer.status == 200, answer.body
            assert tuple(row["index"] for row in answer.body["predictions"]) == ask.indices
    until(lambda: is_well(pair))


def test_killed_engine_fails_what_it_held_and_is_replaced(pair: Server, digits: Digits) -> None:
    tree, before, seen = Tree(pair.process.pid), restarts(pair, "engine"), set[tuple[int, int]]()
    with Load(pair.address, [rows(digits, at, 3) for at in range(20)], CONNECTIONS) as load:
        load.more(10 * CONNECTIONS)
        victim, workers = tree.engine, tree.workers(2)
        last = scrape(pair)
        kill(victim)
        until(lambda: status(pair, "/readyz") == 503)
        while status(pair, "/readyz") != 200:
            seen.add((status(pair, "/livez"), status(pair, "/metrics")))
            time.sleep(0.05)
        load.more(10 * CONNECTIONS)
    assert seen == {(200, 200)}
    assert {outcome.status for outcome in load.outcomes} == {200, 503}, "a worker closed a connection"
    for outcome in load.outcomes:
        if outcome.status == 503:
            assert int(outcome.headers.get(b"retry-after", b"0")) >= 1, outcome
        else:
            assert outcome.is_right, outcome
    assert all(outcome.is_right for outcome in load.outcomes[-10:])
    log.info("the slowest of %d: %.3f s", len(load.outcomes), max(o.seconds for o in load.outcomes))
    assert tree.workers(2) == workers
    assert tree.engine != victim
    assert counts_back(last, scrape(pair)) == []
    assert restarts(pair, "engine") == before + 1
    until(lambda: is_well(pair))


def test_engine_that_is_killed_while_it_loads_is_started_again(digits: Digits) -> None:
    with Process("serve", port=free_port(), threads=1, workers=2) as process:
        kill(Tree(process.pid).stall_engine())
        with Server(process) as server:
            ask = rows(digits, 0, 3)
            with server.connect() as client:
                client.sendall(ask.request)
                assert reply(client).status == 200
            assert restarts(server, "engine") == 1
            assert server.stop() == 0, server.log


@pytest.mark.parametrize("part", ["engine", "web"])
def test_process_that_dies_too_often_ends_the_service(part: str) -> None:
    with Process("serve", port=0, workers=2, max_restarts=1) as process:
        tree, killed = Tree(process.pid), set[int]()
        tree.stall_engine()
        pids = set(tree.workers(2)) | {tree.engine}
        while not process.has_ended and len(killed) < 8:
            for pid in tree.children("engine" if part == "engine" else "web")[:1]:
                killed.add(pid)
                with suppress(ProcessLookupError):
                    kill(pid)
            pids |= set(tree.children())
            time.sleep(0.02)
        assert process.wait() == 1, process.log
        until(lambda: are_gone(list(pids)))
        what = "the engine" if part == "engine" else "a worker"
        assert f"{what} died too often" in process.log
        assert "Traceback" not in process.log


@pytest.mark.parametrize("when", ["under load", "while it loads"])
def test_nothing_is_left_of_a_service_whose_supervisor_is_killed(digits: Digits, when: str) -> None:
    if when == "while it loads":
        with Process("serve", port=0, workers=2) as process:
            Tree(process.pid).stall_engine()
            assert_nothing_is_left(process)
        return
    with Server.start(workers=2) as server:
        with Load(server.address, [rows(digits, 0, 3)], CONNECTIONS) as load:
            load.more(CONNECTIONS)
            # Whether anybody listens at its port says nothing: it may be another service's by now.
            assert_nothing_is_left(server.process)
        for outcome in load.outcomes:
            # Answered rightly, not at all, or by a worker that outlived the engine for a moment.
            assert outcome.is_right or not outcome.status or b'"the engine stopped"' in outcome.body, outcome


def assert_nothing_is_left(process: Process) -> None:
    tree = Tree(process.pid)
    pids, counts = [*tree.workers(2), tree.engine], tree.counts()
    assert counts.is_dir()
    process.signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    until(lambda: are_gone(pids))
    assert not counts.exists()


def test_engine_that_finds_its_model_unreadable_for_a_moment_is_started_again(tmp_path: Path) -> None:
    """At the first start that ends the service; one that was ready once has proven what it is told."""
    manifest = copied(tmp_path) / "model.toml"
    with Server.start(model_store=tmp_path, workers=2, max_restarts=100) as server:
        content = manifest.read_bytes()
        manifest.unlink()
        kill(Tree(server.process.pid).engine)
        server.process.wait_for("ended with status 3")
        manifest.write_bytes(content)
        until(lambda: is_well(server))
        assert server.stop() == 0, server.log
