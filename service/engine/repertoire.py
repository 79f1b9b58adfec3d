"""The repertoire: what is loaded, by number, from its loading until nobody uses it any more."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from service.engine.card import ModelCard, ModelFacts
    from service.engine.loading import Loaded
    from service.plan.plan import Plan
    from service.store.model_store import Fingerprint


class Entry(NamedTuple):
    """A version that is served."""

    number: int
    version: int
    fingerprint: Fingerprint
    """Of its files, before they were read."""


class Repertoire:
    """Plain data for one thread. No number is ever given twice: a version loaded anew gets another one."""

    def __init__(self) -> None:
        # The mutable state: what is computed, and of that what is served.
        self.facts: dict[int, ModelFacts] = {}
        """Of all that is computed."""
        self._plans: dict[int, Plan] = {}
        self._served: dict[int, Entry] = {}
        self._cards: dict[int, ModelCard] = {}
        self._next = 0

    def plan(self, number: int) -> Plan:
        """What computes the model of this number."""
        return self._plans[number]

    def add(self, loaded: Loaded, fingerprint: Fingerprint) -> int:
        """The number of what is served from now on."""
        number, self._next = self._next, self._next + 1
        facts = self.facts[number] = loaded.card.facts
        self._plans[number] = loaded.plan
        self._cards[number] = loaded.card
        self._served[number] = Entry(number, facts.version, fingerprint)
        return number

    def served(self, model: str) -> list[Entry]:
        """The versions of a model that are served."""
        return [entry for number, entry in self._served.items() if self.facts[number].model == model]

    def renew(self, number: int, baseline: Mapping[str, np.ndarray], fingerprint: Fingerprint) -> ModelCard:
        """The card of what is served under this number, with another baseline from now on."""
        self._served[number] = self._served[number]._replace(fingerprint=fingerprint)
        card = self._cards[number] = replace(self._cards[number], baseline=baseline)
        return card

    def withdraw(self, number: int) -> None:
        """It is not served any more, but still computed for those who asked before."""
        del self._served[number]

    def retire(self, number: int) -> None:
        """Nobody asks for it any more: give its memory back."""
        del self.facts[number]
        del self._cards[number]
        self._plans.pop(number).release()
        gc.collect()  # of what came since the start alone, which takes a millisecond or two
