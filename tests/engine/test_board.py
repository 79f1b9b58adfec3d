"""The board: numbers that one process writes and every other reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from service.batching.admission import Load
from service.engine import board as boards
from service.engine.board import Board

ROOT = Path(__file__).parents[2]
NAMES = ("pid", "rows", "slots", "slots_taken", "alive_at", "work_s")


def a_board(workers: int) -> Board:
    descriptor = boards.create(workers)
    try:
        return Board(descriptor)
    finally:
        os.close(descriptor)


def test_what_one_process_writes_another_reads_at_the_same_place() -> None:
    descriptor = boards.create(3)
    board = Board(descriptor)
    source = (
        "import sys; from service.engine.board import Board; board = Board(int(sys.argv[1]));"
        "own = board.workers[1]; own.rows += 7; own.work_s = 0.25; board.engine.rows = 3;"
        "board.supervisor.pid = 2"
    )
    subprocess.run(
        [sys.executable, "-c", source, str(descriptor)], cwd=ROOT, check=True, pass_fds=[descriptor]
    )
    os.close(descriptor)
    assert [worker.rows for worker in board.workers] == [0, 7, 0]
    assert [worker.work_s for worker in board.workers] == [0.0, 0.25, 0.0]
    assert board.load() == Load(4, 0.25)
    assert board.supervisor.pid == 2


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_no_part_of_a_board_lies_in_another(workers: int) -> None:
    board = a_board(workers)
    parts = [board.supervisor, board.engine, *board.workers]
    assert len(board.workers) == workers
    for number, part in enumerate(parts):
        for name in NAMES:
            setattr(part, name, number + 1)
    for number, part in enumerate(parts):
        assert {getattr(part, name) for name in NAMES} == {number + 1}
        assert np.frombuffer(part.whole, np.int64).ctypes.data % 64 == 0, "a cache line of its own"
        assert len(part.whole) * 8 == 64
    parts[0].clear()
    assert {getattr(parts[0], name) for name in NAMES} == {0}
    assert {getattr(parts[1], name) for name in NAMES} == {2}


def test_a_board_keeps_its_size() -> None:
    descriptor = boards.create(1)
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


def test_rows_that_run_do_not_wait() -> None:
    board = a_board(2)
    assert board.load() == Load(0, 0.0)
    board.workers[0].rows, board.workers[1].rows = 5, 6
    board.workers[0].work_s, board.workers[1].work_s = 0.5, 0.25
    board.engine.rows = 8
    assert board.load() == Load(3, 0.75)
    board.workers[0].rows = board.workers[1].rows = 0  # answered; the engine has not looked again yet
    assert board.load().waiting_rows == 0


def test_silent_is_who_was_heard_of_and_is_no_more() -> None:
    board = a_board(2)
    assert not board.engine.is_silent(0.0), "it is still starting"
    board.engine.beat()
    assert not board.engine.is_silent(60.0)
    board.engine.alive_at = time.monotonic() - 61
    assert board.engine.is_silent(60.0)
    board.workers[1].alive_at = time.monotonic() - 61
    assert [worker.is_silent(60.0) for worker in board.workers] == [False, True]


def test_those_that_run_are_known_by_their_parts() -> None:
    board = a_board(2)
    assert board.pids() == {}
    board.supervisor.pid = 10
    board.workers[1].pid = 12
    assert board.pids() == {"supervisor": 10, "worker-1": 12}
    board.engine.pid = 11
    assert board.pids() == {"supervisor": 10, "engine": 11, "worker-1": 12}
