"""The composed application over a client of its own, whose supervisor makes every change."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.engine import board
from service.engine import card as cards
from service.engine.change import Change, Settled
from service.engine.client import EngineClient
from service.engine.control import Kind, Message
from service.keyring import Keyring
from service.settings import Settings
from service.telemetry import Telemetry
from service.web.application import compose
from service.web.context import Parts
from tests.engine.cards import card

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp


_PARITY = {"max_relative_error": 0.0, "unfolded_relative_error": 0.0, "top1_agreement": 1.0}
_FOLD = {"norms": 0, "folded": 0, "kept": 0, "layers": [], "parity": _PARITY, "seconds": {}}


class Composed:
    """The application, and what it had its supervisor asked for; for one event loop."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, asked: list[Change]) -> None:
        self.app = app
        self.telemetry = telemetry
        self.asked = asked

    def counted(self) -> dict[str, float]:
        """The requests that needed a key, by its name."""
        return {
            sample.labels["key"]: sample.value
            for metric in self.telemetry.registry.collect()
            for sample in metric.samples
            if sample.name == "foldserve_key_requests_total"
        }


@contextmanager
def _level_as_before() -> Iterator[None]:
    """Requests may change what this very process logs."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@contextmanager
def composed(**settings: Any) -> Iterator[Composed]:
    """It serves digits, of which nothing is computed."""
    chosen, asked = Settings(**settings), list[Change]()

    def tell(message: Message) -> None:
        if message.kind is Kind.LEVEL:
            asyncio.get_running_loop().call_soon(client.hear, message)
            return
        asked.append(Change.model_validate_json(message.text))
        settled = Settled(change=asked[-1]).packed()
        asyncio.get_running_loop().call_soon(client.hear, Message(Kind.SETTLED, message.number, settled))

    client = EngineClient(chosen, board.Board(board.create(1)), 0, tell)
    client.hear(Message(Kind.CARD, 0, descriptors=(cards.write(card(fold=_FOLD)),)))
    client.hear(Message(Kind.READY))
    telemetry = Telemetry()
    with ThreadPoolExecutor(1) as decoders, _level_as_before():
        yield Composed(compose(Parts(client, chosen, telemetry, decoders), Keyring(chosen)), telemetry, asked)
