"""Jobs for the tests of batching: two models, two dtypes, one moment."""

from __future__ import annotations

from typing import Any

from service.batching.job import Job, Lane

A, B = 0, 1
NOW = 100.0


def job(rows: int = 1, model: int = A, dtype: str = "uint8", **more: Any) -> Job:
    """A job that came just now and has an hour, unless `more` says otherwise."""
    settings: dict[str, Any] = {"arrived": NOW, "deadline": NOW + 3600, **more}
    return Job(Lane(model, dtype), rows, **settings)
