"""Schemas: what is said of one sample, of one norm's live rows, and of how images are preprocessed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.inspection.drift_report import State


class ChannelShift(BaseModel):
    """One channel of a sample against the reference's."""

    model_config = ConfigDict(populate_by_name=True)

    channel: int
    delta: float | None
    """(mean over the sample's pixels - reference mean) / sqrt(reference variance + eps)."""
    log_ratio: float | None = Field(alias="lambda")
    """ln((variance over the sample's pixels + eps) / (reference variance + eps))."""


class LayerShift(BaseModel):
    """One watched norm."""

    name: str
    part: str
    """As `GET /v1/models/{model}/drift` names it."""
    score: float
    """J of the sample's own moments, weighed by gamma²; nothing is taken off for sampling."""
    typical: float | None
    """What half of the baseline's rows score here at most; null without a baseline."""
    worst: list[ChannelShift]
    """The channels that add most to `score`."""


class SampleDrift(BaseModel):
    """How far one sample lies from the reference at every watched norm."""

    model: str
    version: int
    reference: Literal["frozen", "baseline"]
    layers: list[LayerShift]
    """In network order."""


class LayerWindow(BaseModel):
    """The last judged window at one watched norm, channel by channel; empty lists where none was judged."""

    model: str
    version: int
    name: str
    part: str
    state: State
    """Of the version, as `GET /v1/models/{model}/drift` says it."""
    reference: Literal["frozen", "baseline"]
    judged_at: float | None
    """In seconds since the epoch; null before the first window."""
    n: int
    """Rows of the window."""
    n_eff: float
    """How many independent rows they are worth."""
    eps: float
    """The norm's own."""
    mean: list[float | None]
    """Of the window's rows; what is not finite is null, here and below."""
    var: list[float | None]
    delta: list[float | None]
    log_ratio: list[float | None] = Field(alias="lambda")
    z: list[float | None]
    """The larger of both in its standard errors."""
    reference_mean: list[float | None]
    reference_var: list[float | None]


class Variant(BaseModel):
    """The images, preprocessed in one way."""

    name: str
    """`as configured`, or the fault that was tried."""
    meaning: str
    score: float
    """Its distance from what the first norms saw in training; less fits better."""


class Diagnosis(BaseModel):
    """Whether images reach the network as they did in training."""

    model: str
    version: int
    images: int
    verdict: Literal["fits", "fault", "unclear"]
    fault: str | None
    """What is wrong, in a few words."""
    likely: str | None
    """The name of the variant that explains it; null where no fault was found."""
    meaning: str
    """The verdict in a sentence."""
    fix: list[str]
    """The lines of `[input]` in `model.toml` that would have to change, and to what."""
    variants: list[Variant]
    """Best first."""
