"""Jobs for the tests of batching: two models, two dtypes, one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.batching.job import Job, Lane

if TYPE_CHECKING:
    from service.batching.job import Wanted

A, B = 0, 1
NOW = 100.0


def job(rows: int = 1, model: int = A, dtype: str = "uint8", wanted: Wanted = "answers", **more: Any) -> Job:
    """A job that came just now and has an hour, unless `more` says otherwise."""
    settings: dict[str, Any] = {"arrived": NOW, "deadline": NOW + 3600, **more}
    return Job(Lane(model, dtype, wanted), rows, **settings)
