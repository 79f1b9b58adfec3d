"""The engine's process: `python -m service.engine DESCRIPTOR PARENT`, started by the supervisor alone."""

from __future__ import annotations

import logging
import os
import sys

from service import telemetry
from service.engine import allocator
from service.engine.board import Board
from service.engine.child import REFUSED, begin
from service.engine.selection import Selection
from service.errors import FoldserveError
from service.inspection.notices import Notices
from service.store.model_store import ModelStore

log = logging.getLogger("foldserve.engine")


def main() -> int:
    """Load and serve until told to stop; the answer is the process's exit status."""
    control, order, descriptors = begin(dies_with_parent=True)
    board = Board(descriptors[0])
    board.engine.pid = os.getpid()
    telemetry.set_up_logs(order.settings.log_level, order.settings.log_format, "engine")
    allocator.share_one_arena()
    from service.engine.engine import Engine  # noqa: PLC0415 - the threads that torch starts come after all this

    selection = Selection(ModelStore(order.settings.model_store), order.settings, order.served)
    counts = telemetry.Telemetry(telemetry.SharedValues(order.counts, "engine"))
    engine = Engine(selection, order.settings, control, board, counts, Notices(order.counts))
    try:
        engine.run()
    except FoldserveError as refused:
        log.error("%s", refused)  # noqa: TRY400 - it is written for people
        return REFUSED
    except Exception:
        log.exception("the engine failed")
        status = 1
    else:
        status = 0
    if engine.is_loading:
        os._exit(status)  # an interpreter that ends would stop the thread in the middle of torch
    return status


if __name__ == "__main__":
    sys.exit(main())
