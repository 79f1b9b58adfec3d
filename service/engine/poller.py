"""The poller: looks at the store again and again for models that have changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from service.engine.change import Change
from service.errors import FoldserveError

if TYPE_CHECKING:
    from service.engine.selection import Selection, State

log = logging.getLogger("foldserve")


class Poller:
    """Asks for each state of a model once, when two looks have found it: nobody is writing it any more."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        # The mutable state: what the last look found, what was asked for, and why a look found nothing.
        self._before: dict[str, State] = {}
        self._asked: dict[str, State] = {}
        self._complaint = ""

    def look(self) -> list[Change]:
        """The changes to make now. At first that is every model: whoever has loaded it does nothing."""
        try:
            found = {name: self._selection.state(name) for name in self._selection.names()}
        except FoldserveError as error:
            self._complain(str(error))
            return []
        there = {name: state for name, state in found.items() if state}
        before, self._before = self._before, there
        gone = [name for name in self._asked if name not in there and name not in before]
        fresh = {
            name: state
            for name, state in there.items()
            if before.get(name) == state and self._asked.get(name) != state
        }
        self._asked = {name: state for name, state in self._asked.items() if name not in gone} | fresh
        return [
            *(Change(action="unload", model=name) for name in gone),
            *(Change(action="load", model=name) for name in fresh),
        ]

    def forget(self) -> None:
        """Ask for everything again: the engine is a new one."""
        self._asked.clear()

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.error("the model store cannot be looked at: %s", why)
        self._complaint = why
