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
        # The mutable state: what the last look found, what was asked for, whether that was asked of the
        # engine that runs, and what is wrong with the store.
        self._before: dict[str, State] = {}
        self._asked: dict[str, State] = {}
        self._is_forgotten = False
        self._complaint = ""

    def look(self) -> list[Change]:
        """The changes to make now. At first that is every model: whoever has loaded it does nothing."""
        if self._is_forgotten:
            self._asked, self._is_forgotten = {}, False
        there, unseen = self._found()
        before, self._before = self._before, there
        gone = [name for name in self._asked if name not in {*there, *unseen, *before}]
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
        """Ask for everything again: the engine is a new one. It may be that another thread looks now."""
        self._is_forgotten = True

    def _found(self) -> tuple[dict[str, State], set[str]]:
        """The models that are there, and those that cannot be looked at: what is served of them stays."""
        there: dict[str, State] = {}
        wrong: dict[str, str] = {}
        try:
            names = self._selection.names()
        except FoldserveError as error:
            self._complain(str(error))
            return {}, set(self._asked)
        for name in names:
            try:
                there[name] = self._selection.state(name)
            except FoldserveError as error:
                wrong[name] = str(error)
        self._complain("; ".join(wrong.values()))
        return {name: state for name, state in there.items() if state}, set(wrong)

    def _complain(self, why: str) -> None:
        if why and why != self._complaint:
            log.error("the model store cannot be looked at: %s", why)
        self._complaint = why
