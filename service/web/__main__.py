"""A worker's process: `python -m service.web DESCRIPTOR PARENT`, started by the supervisor alone."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import uvloop

from service import telemetry
from service.engine import allocator
from service.engine.board import Board
from service.engine.child import begin
from service.web.worker import Worker


def main() -> int:
    """Serve until told to drain; the answer is the process's exit status."""
    control, order, descriptors = begin(dies_with_parent=False)
    allocator.share_one_arena()
    allocator.keep_images()
    board = Board(descriptors[0])
    board.workers[order.number].pid = os.getpid()
    telemetry.set_up_logs(order.settings.log_level, order.settings.log_format, f"worker-{order.number}")
    worker = Worker(control, order, board, socket.socket(fileno=descriptors[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
