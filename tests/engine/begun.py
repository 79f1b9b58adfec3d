"""A child for the tests: it begins as the engine does, says what it found, and waits for the end."""

from __future__ import annotations

import json
import os
import sys
import time

from service.engine.child import begin
from service.engine.control import Kind, Message, close_all


def main() -> None:
    control, order, descriptors = begin(dies_with_parent=True)
    found = {
        "order": order.model_dump(mode="json"),
        "files": [os.pread(descriptor, 99, 0).decode() for descriptor in descriptors],
        "cores": sorted(os.sched_getaffinity(0)),
        "group": os.getpgid(0),
        "open": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }
    control.send(Message(Kind.UP, order.number, json.dumps(found).encode()))
    if order.settings.models == "deaf":
        time.sleep(3600)
    heard = []
    while (message := control.receive()) is not None:
        heard.append((message.number, len(message.descriptors)))
        close_all(message)
        if message.kind is Kind.READY:
            control.send(Message(Kind.UP, order.number, json.dumps(heard).encode()))
    sys.exit(7)


if __name__ == "__main__":
    main()
