"""Schemas: the JSON that the native routes answer and the query parameters that they take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.inspection.equation import Equation
from service.inspection.layer_stats import Histogram, LayerStats
from service.telemetry import Level


class RowsQuery(BaseModel):
    """How rows are read, and how long an answer may take; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Annotated[
        Literal["uint8", "float32"],
        Field(
            description="Of JSON numbers and octet streams: uint8 are pixels, which foldserve normalises; "
            "float32 are network inputs, normalised already."
        ),
    ] = "float32"
    timeout_ms: Annotated[int, Field(gt=0, description="Answer within this time, or with 504.")] | None = None


class PredictQuery(RowsQuery):
    """The same, and how answers are written."""

    top_k: Annotated[int, Field(ge=1, le=1000, description="How many classes per row, best first.")] = 1
    output: Annotated[
        Literal["labels", "probabilities", "logits"],
        Field(description="Whole vectors beside the best classes: their probabilities, or raw logits."),
    ] = "labels"


class Choice(BaseModel):
    """One class of a row."""

    label: str
    index: int
    score: float
    """Its probability."""


class Prediction(Choice):
    """One row: its best class, and what else was asked for."""

    top: list[Choice] | None = None
    probabilities: list[float] | None = None
    logits: list[float] | None = None


class Timing(BaseModel):
    """Milliseconds in each stage."""

    decode: float
    queue: float
    compute: float
    total: float


class Predictions(BaseModel):
    """The answer to a prediction."""

    model: str
    version: int
    predictions: list[Prediction]
    timing_ms: Timing


class FoldSummary(BaseModel):
    """How many norms were folded, and how exact the result is."""

    norms: int
    folded: int
    kept: int
    max_relative_error: float
    unfolded_relative_error: float
    top1_agreement: float


class ModelSummary(BaseModel):
    """One served version."""

    model: str
    version: int
    state: str
    architecture: str | None
    """A name of the catalog; null for an exported program."""
    input_shape: list[int]
    output_shape: list[int]
    device: str
    precision: str
    max_batch: int
    threads: int
    """How many compute a batch on the CPU; 0 on CUDA."""
    tuned: bool
    """Whether these were measured at start-up."""
    preprocessing: str
    """Where pixels become network inputs: in `one pass`, or in the weights of the `first layers`."""
    fold: FoldSummary


class Models(BaseModel):
    """Everything that is served."""

    state: str
    models: list[ModelSummary]


class ModelDetail(ModelSummary):
    """One served version with all that it was loaded from and how."""

    versions: list[int]
    labels: list[str] | None
    manifest: dict[str, Any]
    batching: dict[str, int | float]
    reference: Literal["stored", "computed"]
    """Whether the proof's float64 answers lay beside the weights or were computed at this start."""
    memory: dict[str, int]
    """Bytes that the plan holds: `weights` that ATen calls read, `packed` ones for oneDNN, CUDA `graphs`."""
    torch: str
    seconds: dict[str, float]


class Layers(BaseModel):
    """One entry per norm, in the order in which the network computes them."""

    model: str
    version: int
    layers: list[LayerStats]


class LayerDetail(LayerStats):
    """One norm with its whole vectors, their histograms, and one channel in numbers."""

    model: str
    version: int
    equation: Equation | None
    """Of the channel that was asked for; null without running statistics."""
    vectors: dict[str, list[float]]
    histograms: dict[str, Histogram]


class FoldDetail(BaseModel):
    """The fold report."""

    model: str
    version: int
    norms: int
    folded: int
    kept: int
    layers: list[dict[str, Any]]
    parity: dict[str, Any]
    golden: dict[str, Any] | None
    """The same of the golden inputs, `rows` of them; null where the version has none."""
    seconds: dict[str, float]


class Problem(BaseModel):
    """An error, as RFC 9457 has it; `type` is a stable slug."""

    type: str
    title: str
    status: int
    detail: str


class LogLevel(BaseModel):
    """What is logged: this and all above it."""

    model_config = ConfigDict(extra="forbid")

    level: Level
