"""The editions: what a worker knows of the models that the engine has loaded, and who uses them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.batching.admission import Rate
from service.engine import card as cards
from service.engine.card import ModelKey
from service.engine.control import Kind, Message
from service.errors import NotReady, UnknownModel, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.engine.card import ModelCard


@dataclass(eq=False)
class Edition:
    """A version as it was loaded once: its number, its rate, and how many requests and jobs use it."""

    card: ModelCard
    number: int
    rate: Rate
    unused: Callable[[Edition], None]
    """Called whenever the last user has let go."""
    uses: int = 0
    is_dropped: bool = False
    former: list[ModelCard] = field(default_factory=list)
    """Its cards before this one, which requests may still bear that came then."""

    def hold(self) -> None:
        """Keep it until one more `release`."""
        self.uses += 1

    def release(self) -> None:
        """Let go."""
        self.uses -= 1
        if not self.uses:
            self.unused(self)


class Editions:
    """For one event loop; `tell` says something to the supervisor."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        # The mutable state: what is served, and all that is computed, be it for those who asked before.
        self.is_complete = False
        """Whether there is an engine that has loaded all its models."""
        self._cards: dict[ModelKey, ModelCard] = {}
        self._editions: dict[ModelCard, Edition] = {}

    def cards(self) -> list[ModelCard]:
        """The cards of all loaded versions, by name and version."""
        return [self._cards[key] for key in sorted(self._cards)]

    def card(self, model: str, version: int | None = None) -> ModelCard:
        """The card of a version, the highest where none is named.

        Raises `NotReady` while models are being loaded, `UnknownModel` and `UnknownVersion`.
        """
        versions = [key.version for key in self._cards if key.model == model]
        chosen = max(versions, default=0) if version is None else version
        if chosen in versions:
            return self._cards[ModelKey(model, chosen)]
        if not self.is_complete:
            raise NotReady("models are still being loaded", retry_after_s=1)
        if not versions:
            raise UnknownModel(f"no model {model!r} is served")
        raise UnknownVersion(f"model {model!r} is not served in version {chosen}")

    @contextmanager
    def using(self, model: str, version: int | None = None) -> Iterator[ModelCard]:
        """The same for a request: until the block ends it is computed, even where others take its place."""
        card = self.card(model, version)
        edition = self._editions.get(card)
        if edition is None:  # of an engine that was lost; what is asked of it is refused
            yield card
            return
        edition.hold()
        try:
            yield card
        finally:
            edition.release()

    def of(self, card: ModelCard) -> Edition | None:
        """What the engine computes for whoever has this card; None where it does so no more."""
        return self._editions.get(card)

    # --- what the supervisor says

    def learn(self, number: int, descriptor: int) -> None:
        """A version is served from now on, or something else is said of the one of this number."""
        card = cards.read(descriptor)
        os.close(descriptor)
        self._cards[card.key] = card
        edition = self._numbered(number)
        if edition is None:
            rate = Rate(card.facts.seconds_per_row, card.facts.max_batch)
            edition = Edition(card, number, rate, self._end)
        else:
            edition.former.append(edition.card)
            edition.card = card
        self._editions[card] = edition

    def drop(self, number: int) -> None:
        """Serve it no more; who uses it goes on until the end."""
        edition = self._numbered(number)
        if edition is None:
            raise ValueError(f"nothing was loaded under the number {number}")
        if self._cards.get(edition.card.key) is edition.card:
            del self._cards[edition.card.key]
        edition.is_dropped = True
        edition.hold()
        edition.release()

    def complete(self) -> None:
        """All is loaded: what an engine before this one had, and this one has not, is served no more."""
        self._cards = {key: card for key, card in self._cards.items() if card in self._editions}
        self.is_complete = True

    def lose(self) -> None:
        """The engine is gone; the next one loads anew, and what is known stays known until then."""
        self.is_complete = False
        self._editions.clear()

    def _numbered(self, number: int) -> Edition | None:
        return next((each for each in self._editions.values() if each.number == number), None)

    def _end(self, edition: Edition) -> None:
        """Nobody uses it: forget its former cards, and say so where it was dropped."""
        for card in edition.former:
            self._editions.pop(card, None)
        edition.former.clear()
        if edition.is_dropped and self._editions.get(edition.card) is edition:
            del self._editions[edition.card]
            self._tell(Message(Kind.IDLE, edition.number))
