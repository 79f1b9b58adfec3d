"""The tally: what a client sent, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

_NAMED_AT_MOST = 20


@dataclass
class Tally:
    """Counts by what was asked; every request that was sent and not left must be answered or closed."""

    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    """By name and status, as in `png 200`."""
    closings: Counter[str] = field(default_factory=Counter)
    """Connections that were closed instead, where that is right."""
    leavings: Counter[str] = field(default_factory=Counter)
    """Requests whose client went away."""
    wrong: list[str] = field(default_factory=list)
    """What was not right, the first few."""
    number_wrong: int = 0

    def sent(self, name: str) -> None:
        """A request whose answer the client waits for."""
        self.requests[name] += 1

    def answered(self, name: str, status: int) -> None:
        """An answer, whether or not it is right."""
        self.answers[f"{name} {status}"] += 1

    def closed(self, name: str) -> None:
        """A connection that was closed in place of an answer, rightly."""
        self.closings[name] += 1

    def left(self, name: str) -> None:
        """A client that went away."""
        self.leavings[name] += 1

    def is_wrong(self, what: str) -> None:
        """Anything that must not be."""
        self.number_wrong += 1
        if len(self.wrong) < _NAMED_AT_MOST:
            self.wrong.append(what)

    def status(self, status: int) -> int:
        """How many answers had it."""
        return sum(count for key, count in self.answers.items() if key.endswith(f" {status}"))

    def add(self, other: dict[str, Any]) -> Self:
        """Count what another client counted, as `vars` has it."""
        for name in ("requests", "answers", "closings", "leavings"):
            getattr(self, name).update(other[name])
        self.number_wrong += other["number_wrong"]
        self.wrong += other["wrong"]
        return self
