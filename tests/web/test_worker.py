"""A worker's process, told by a test what a supervisor would tell it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from service.engine import arena, board
from service.engine.child import Child, Order
from service.engine.control import Kind, Message
from service.settings import Settings

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
HANG_S = 300.0  # reached only by what hangs


async def _status_after(said: bytes, counts: Path, *extra: Message) -> int:
    """How a worker ends to which the engine says this, and the supervisor something more."""
    listening, shared, memory = socket.create_server(("127.0.0.1", 0)), board.create(1), arena.create(8)
    engine, theirs = socket.socketpair()
    worker = await Child.start("service.web")
    with listening, engine, theirs, contextlib.closing(worker.control):
        worker.tell(Order(settings=Settings(), counts=counts).message((shared, listening.fileno())))
        worker.tell(Message(Kind.LINK, 0, descriptors=(theirs.fileno(), memory)))
        for message in extra:
            worker.tell(message)
        engine.sendall(said)
        os.close(shared)
        os.close(memory)
        return await asyncio.wait_for(worker.ended(), HANG_S)


def test_a_worker_that_cannot_understand_the_engine_ends_and_so_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # `python -m` looks there
    assert asyncio.run(_status_after(bytes(64), tmp_path)) == 1


def test_a_worker_that_cannot_do_what_it_is_told_ends_and_so_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has no descriptor left for the link to a new engine."""
    monkeypatch.chdir(ROOT)
    assert asyncio.run(_status_after(b"", tmp_path, Message(Kind.LINK, 0))) == 1
