"""The drift report: what is said of one version's live rows, as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["off", "warming", "ok", "unlike training", "drifting", "failed"]


class Channel(BaseModel):
    """One channel's live moments against the reference's."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    channel: int
    delta: float
    """(live mean - reference mean) / sqrt(reference variance + eps)."""
    log_ratio: float = Field(alias="lambda")
    """ln((live variance + eps) / (reference variance + eps))."""
    z: float
    """The larger of both in its standard errors."""


class LayerDrift(BaseModel):
    """One watched norm."""

    model_config = ConfigDict(frozen=True)

    name: str
    part: Literal["input", "content"]
    """In the first third of the network's norms, or in the last."""
    score: float
    """Against the reference that decides."""
    training_score: float
    """Against the frozen statistics."""
    worst: list[Channel]
    """The channels that add most to `score`."""


class Scores(BaseModel):
    """One number for each end of the network, and one for what varies within rows."""

    model_config = ConfigDict(frozen=True)

    input: float
    content: float | None
    """null where that end is not watched."""
    texture: float | None = None
    """How much the pixels vary within rows, at the input; null where there is no baseline of it."""


class DriftReport(BaseModel):
    """Live rows against what the network was trained on, or against a baseline where there is one."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    state: State
    meaning: str
    """The state in a sentence."""
    reference: Literal["frozen", "baseline"] = "frozen"
    """What decides: the frozen running statistics, or the baseline."""
    baseline_rows: int | None = None
    collected: int = 0
    """Rows in the window that is being filled."""
    windows: int = 0
    """How many were judged."""
    contrary: int = 0
    """How many of the last in a row contradict the state; it changes at three."""
    judged_at: float | None = None
    """When the last was, in seconds since the epoch; all below is of it."""
    n: int = 0
    """Its rows."""
    n_eff: float = 0.0
    """How many independent rows they are worth."""
    scores: Scores | None = None
    thresholds: Scores | None = None
    training_scores: Scores | None = None
    """Against the frozen statistics, whatever decides."""
    layers: list[LayerDrift] = Field(default_factory=list)
    """One for each watched norm, in network order."""
