"""The drain under load: no request is lost that was sent on an open connection."""

from __future__ import annotations

import os
import signal

import pytest

from service.web.connection import LINGER_S

from .digits import Digits, encoded
from .load import Ask, Load
from .server import Server
from .wire import head

pytestmark = pytest.mark.e2e

CONNECTIONS = 64
TRIES = int(os.environ.get("FOLDSERVE_TEST_DRAINS", "2"))
"""Of each kind; `make drains` has twenty."""
TOO_LATE = 5
"""Tries at most: clients that were held up for as long as the service waits for them show nothing."""


@pytest.mark.parametrize("try_", range(TRIES))
@pytest.mark.parametrize("keeps_alive", [True, False], ids=["keep-alive", "a connection each"])
def test_signal_under_load_loses_no_request(digits: Digits, try_: int, *, keeps_alive: bool) -> None:
    body = encoded(digits.pixels[0])
    lines = [f"Content-Length: {len(body)}", *([] if keeps_alive else ["Connection: close"])]

    ask = Ask(head(*lines) + body, (int(digits.logits[0].argmax()),))
    for _ in range(TOO_LATE):
        load = drained(ask, 500 + 50 * try_)
        lost = [outcome for outcome in load.outcomes if not outcome.is_right]
        if not any(not outcome.status for outcome in lost) or load.held_up_s < LINGER_S / 2:
            break
    assert lost == [], f"clients were late by {load.held_up_s:.3f} s"
    assert [type(refusal) for refusal in load.refusals] == [ConnectionRefusedError] * CONNECTIONS


def drained(ask: Ask, answers: int) -> Load:
    """A load whose service was told to end behind so many answers, and ended in order."""
    with Server.start(workers=2) as server:
        with Load(server.address, [ask], CONNECTIONS) as load:
            load.more(answers)
            server.process.signal(signal.SIGTERM)
            load.end_when_refused()
        assert server.process.wait() == 0, server.log
        assert "Traceback" not in server.log
    return load
