"""The change: a model to load or to unload while others are served, or rows to accept; what became of it."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from service import errors

_MOST_DETAIL = 4000
"""Characters; torch may have much to say, and a message has its limit."""


Refusal = Literal[
    "LoadRefused",
    "LoadStalled",
    "UnknownModel",
    "UnknownVersion",
    "NotWatched",
    "TooFewRows",
    "NotStored",
    "Draining",
    "EngineFailed",
]
_KNOWN = (
    *(errors.UnknownModel, errors.UnknownVersion, errors.Draining, errors.EngineFailed),
    *(errors.NotWatched, errors.TooFewRows, errors.NotStored, errors.LoadStalled),
)
_PASSING = (errors.DoesNotFit, errors.LoadStalled, errors.EngineFailed)


class Change(BaseModel):
    """What the engine is asked for; loading a model brings it to what the store and the settings say.

    `accept` makes the live rows of one version its baseline.
    """

    model_config = ConfigDict(frozen=True)

    action: Literal["load", "unload", "accept"]
    model: str
    version: int | None = None
    """For `accept`; loading and unloading is of all versions."""
    is_retry: bool = False
    """Whether nothing has changed since the same was refused for what may pass."""

    def packed(self) -> bytes:
        """As the text of a message."""
        return self.model_dump_json().encode()


class Settled(BaseModel):
    """What became of a change: nothing is said of one that was made."""

    model_config = ConfigDict(frozen=True)

    change: Change
    refusal: Refusal | None = None
    """The class of the error, of `service.errors`; None where the change was made."""
    detail: str = ""
    may_pass: bool = False
    """Whether the same may be done later, though nothing changes in the store."""

    @classmethod
    def refused(cls, change: Change, error: errors.FoldserveError) -> Self:
        """Not made, for that reason; what is wrong with a version counts as `LoadRefused`."""
        kind = type(error).__name__ if isinstance(error, _KNOWN) else "LoadRefused"
        detail = str(error).encode("utf-8", "backslashreplace").decode()[:_MOST_DETAIL]
        may_pass = isinstance(error, _PASSING)
        return cls.model_validate({"change": change, "refusal": kind, "detail": detail, "may_pass": may_pass})

    @property
    def outcome(self) -> str:
        """What became of it in one word: ok, or the error's name as in `load-refused`."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "-", self.refusal).lower() if self.refusal else "ok"

    @property
    def known_model(self) -> str:
        """The model's name, or nothing for one that nobody knows: there may be any number of those."""
        return "" if self.refusal == "UnknownModel" else self.change.model

    def error(self) -> errors.FoldserveError | None:
        """What whoever asked for it is told; None where it was made."""
        if self.refusal is None:
            return None
        made: errors.FoldserveError = getattr(errors, self.refusal)(self.detail)
        return made

    def packed(self) -> bytes:
        """As the text of a message."""
        return self.model_dump_json().encode()
