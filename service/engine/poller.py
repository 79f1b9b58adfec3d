"""The poller: looks at the store again and again for models that have changed."""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine.change import Change
from service.errors import FoldserveError

if TYPE_CHECKING:
    from service.engine.change import Settled
    from service.engine.selection import Selection, State

log = logging.getLogger("foldserve")

_LONGEST = 16


@dataclass
class _Pause:
    """Looks between two tries of what was refused for what may pass."""

    looks: int
    left: float
    """Infinite while it is being tried."""


class Poller:
    """Asks for each state of a model once, when two looks have found it: nobody is writing it any more.

    Only what was refused for what may pass, such as too little memory, is asked for again: after a look,
    then after twice as many each time, 16 at most, and at once when another change was made.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        # The mutable state: what the last look found, what was asked for, whether that was asked of the
        # engine that runs, and what is wrong with the store.
        self._before: dict[str, State] = {}
        self._asked: dict[str, State] = {}
        self._is_forgotten = False
        self._complaint = ""
        # Besides: what became of changes, and which models are tried again.
        self._ended: deque[Settled] = deque()
        self._pauses: dict[str, _Pause] = {}

    def look(self) -> list[Change]:
        """The changes to make now. At first that is every model: whoever has loaded it does nothing."""
        self._weigh_what_ended()
        if self._is_forgotten:
            self._asked, self._pauses, self._is_forgotten = {}, {}, False
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
            *(Change(action="load", model=name, is_retry=True) for name in self._due(there)),
        ]

    def hear(self, settled: Settled) -> None:
        """A change has come to its end. It may be that another thread looks now."""
        self._ended.append(settled)

    def _weigh_what_ended(self) -> None:
        while self._ended:
            settled = self._ended.popleft()
            name = settled.change.model
            if settled.change.action == "load" and settled.may_pass:
                last = self._pauses.get(name)
                looks = min(2 * last.looks, _LONGEST) if last else 1
                self._pauses[name] = _Pause(looks, looks)
            else:
                self._pauses.pop(name, None)
            if settled.refusal is None:  # it may have given memory back
                for pause in self._pauses.values():
                    pause.left = min(pause.left, 1) if pause.left < math.inf else pause.left

    def _due(self, there: dict[str, State]) -> list[str]:
        """What is tried again now; what has changed since is none of that."""
        as_refused = [name for name, state in there.items() if self._asked.get(name) == state]
        self._pauses = {name: pause for name, pause in self._pauses.items() if name in as_refused}
        due = []
        for name, pause in self._pauses.items():
            pause.left -= 1
            if pause.left <= 0:
                pause.left = math.inf
                due.append(name)
        return due

    def forget(self) -> None:
        """Ask for everything again: the engine is a new one. It may be that another thread looks now."""
        self._is_forgotten = True

    def _found(self) -> tuple[dict[str, State], set[str]]:
        """The models that are there, and those that cannot be looked at: what is served of them stays."""
        there: dict[str, State] = {}
        wrong: dict[str, str] = {}
        unfinished: set[str] = set()
        try:
            names = self._selection.names()
        except FoldserveError as error:
            self._complain(str(error))
            return {}, set(self._asked)
        for name in names:
            try:
                if state := self._selection.state(name):
                    there[name] = state
                elif self._selection.is_unfinished(name):
                    unfinished.add(name)
            except FoldserveError as error:
                wrong[name] = str(error)
        self._complain("; ".join(wrong.values()))
        return there, {*wrong, *unfinished}

    def _complain(self, why: str) -> None:
        if why and why != self._complaint:
            log.error("the model store cannot be looked at: %s", why)
        self._complaint = why
