"""The drift report: what is said of one version's live rows, as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["off", "warming", "ok", "unlike training", "drifting", "failed"]

MEANINGS: dict[State, str] = {
    "off": "Live rows are not looked at.",
    "warming": "Too few independent rows were seen to tell.",
    "ok": "Live rows look like the reference.",
    "unlike training": "Live rows are far from what the network was trained on; augmentation in training "
    "alone can cause that, so it is no alarm. A baseline tells (foldserve calibrate).",
    "drifting": "What reaches the first norms has changed since the baseline was recorded.",
    "failed": "Looking at live rows failed; requests are answered as before. The log says why.",
}
OTHER_CONTENT = " Only the last norms differ: other content or another class mix."
OTHER_TEXTURE = " It is the pixels within rows that vary more or less than they did, as with noise or blur."


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


def unseen(model: str, version: int, state: State) -> DriftReport:
    """What is said of a version of which no row was looked at: it is `off`, or still `warming`."""
    return DriftReport(model=model, version=version, state=state, meaning=MEANINGS[state])
