"""More than the engine can do: what is accepted is answered rightly, everything else is refused at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .load import Ask, Load, Outcome, rows
from .server import Server, until
from .watching import is_well, scrape
from .wire import reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .digits import Digits

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)

ROWS = 256
"""Of a request; one row to a batch makes a slow engine of a quick model."""
ANSWERS = 40
REFUSALS = 20
SETTINGS = {"workers": 2, "max_batch": 1, "max_waiting_rows": 4 * ROWS}


def p99_ms(outcomes: Sequence[Outcome]) -> float:
    return float(np.quantile([outcome.seconds for outcome in outcomes], 0.99)) * 1000


def enough(outcomes: Sequence[Outcome]) -> bool:
    """So many of either kind; a quick engine gives its answers before those who were refused come back."""
    taken = sum(outcome.status == 200 for outcome in outcomes)
    return taken >= ANSWERS and len(outcomes) - taken > REFUSALS


def test_overloaded_service_answers_what_it_accepts_and_refuses_the_rest(digits: Digits) -> None:
    asks = [rows(digits, at, ROWS) for at in range(20)]
    with Server.start(**SETTINGS) as server:
        with Load(server.address, asks, 1, most=20) as alone:
            alone.join()
        assert [outcome for outcome in alone.outcomes if not outcome.is_right] == []
        # Three times what fits, and whoever is refused comes back soon.
        with Load(server.address, asks, 12, pause_s=0.1) as load:
            until(lambda: enough(load.outcomes))
        taken = [outcome for outcome in load.outcomes if outcome.status == 200]
        refused = [outcome for outcome in load.outcomes if outcome.status != 200]
        log.info("alone p99 %.1f ms (%d)", p99_ms(alone.outcomes), len(alone.outcomes))
        log.info("accepted p99 %.1f ms (%d)", p99_ms(taken), len(taken))
        log.info("refused p99 %.1f ms (%d)", p99_ms(refused), len(refused))
        assert [outcome for outcome in taken if not outcome.is_right] == []
        assert {outcome.status for outcome in refused} == {429}
        assert all(int(outcome.headers[b"retry-after"]) >= 1 for outcome in refused)
        now = scrape(server)
        assert now["foldserve_requests_total", "digits", "ok"] == len(taken) + len(alone.outcomes)
        assert now["foldserve_requests_total", "digits", "queue-full"] == len(refused)
        until(lambda: is_well(server))
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def test_full_queue_is_full_for_every_worker_and_nobody_waits_to_hear_it(digits: Digits) -> None:
    settings = {"workers": 2, "max_waiting_rows": 40, "max_delay_ms": 10_000, "max_batch": 48}
    with Server.start(**settings) as server:
        held = [server.connect() for _ in range(8)]
        asks = [rows(digits, at, 5) for at in range(8)]
        for client, ask in zip(held, asks, strict=True):
            client.sendall(ask.request)
        until(lambda: scrape(server)["foldserve_waiting_rows",] == 40)
        more: list[Ask] = [rows(digits, at, 3) for at in range(20)]
        for ask in more:  # a connection each, so that both workers are asked
            with server.connect() as client:
                client.sendall(ask.request)
                answer = reply(client)
                assert answer.status == 429, answer.body
                assert int(answer.headers["retry-after"]) >= 1
        assert scrape(server)["foldserve_waiting_rows",] == 40, "what waited was answered meanwhile"
        for client in held:
            client.close()
        until(lambda: is_well(server))
        assert server.stop() == 0, server.log
