"""Schemas of the Open Inference Protocol v2: what its routes take and answer, in its own words."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ProtocolError(BaseModel):
    """An error."""

    error: str


class Live(BaseModel):
    """Whether the server can answer at all."""

    live: bool


class Ready(BaseModel):
    """Whether requests to infer are answered."""

    ready: bool


class ModelReady(Ready):
    """The same of one model."""

    name: str


class ServerMetadata(BaseModel):
    """The server and the extensions that it has."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor; -1 is an axis of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfigInput(BaseModel):
    """An input of the model configuration."""

    name: str
    data_type: str
    format: str
    dims: list[int]
    """Without the batch axis."""


class ConfigOutput(BaseModel):
    """An output of the model configuration."""

    name: str
    data_type: str
    dims: list[int]
    label_filename: str


class DynamicBatching(BaseModel):
    """How batches form."""

    preferred_batch_size: list[int]
    max_queue_delay_microseconds: int


class InstanceGroup(BaseModel):
    """Where a model is computed."""

    name: str
    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: int


class ModelConfig(BaseModel):
    """The model configuration extension, as far as it has a meaning here."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    """The rows of one request."""
    input: list[ConfigInput]
    output: list[ConfigOutput]
    dynamic_batching: DynamicBatching
    instance_group: list[InstanceGroup]


class Duration(BaseModel):
    """How often something happened, and the nanoseconds that it took in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """What became of the requests to a version."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(BaseModel):
    """The statistics of one version."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since the epoch; 0 for never."""
    inference_count: int
    """Rows."""
    execution_count: int
    """Batches."""
    inference_stats: InferenceStatistics
    batch_stats: list[Any]
    """Empty: what a batch of each size took is not kept."""


class AllStatistics(BaseModel):
    """The statistics extension."""

    model_stats: list[ModelStatistics]


class IndexQuery(BaseModel):
    """What is asked of the index; anything else in it is ignored."""

    model_config = ConfigDict(strict=True)

    ready: bool | None = Field(False, description="Only what is ready.")


class ChangeQuery(BaseModel):
    """How a model is loaded or unloaded: only as the store says. Anything else in it is ignored."""

    model_config = ConfigDict(strict=True)

    parameters: dict[str, Any] | None = Field(
        None, description="`unload_dependents` is ignored; any other parameter is refused."
    )


class IndexEntry(BaseModel):
    """One version in the index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
