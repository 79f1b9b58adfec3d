"""Schemas of the Open Inference Protocol v2: what its routes take and answer, in its own words."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from service.telemetry import Level


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


class LogSettings(BaseModel):
    """What is logged, in the words of the logging extension."""

    log_file: str = Field("", description="Always empty: lines go to standard error.")
    log_info: bool
    log_warning: bool
    log_error: bool = True
    log_verbose_level: int = Field(0, description="1 where what is for finding mistakes is logged, too.")
    log_format: str = "default"

    @classmethod
    def of(cls, level: Level) -> Self:
        """The settings that are this level."""
        return cls(
            log_info=level in {"debug", "info"},
            log_warning=level != "error",
            log_verbose_level=int(level == "debug"),
        )

    @property
    def level(self) -> Level:
        """The most that is to be logged."""
        if self.log_verbose_level:
            return "debug"
        if self.log_info:
            return "info"
        return "warning" if self.log_warning else "error"


class LogSettingsQuery(BaseModel):
    """Those of them that are to change; a file or another format cannot be had."""

    model_config = ConfigDict(extra="forbid", strict=True)

    log_file: Literal[""] | None = None
    log_info: bool | None = None
    log_warning: bool | None = None
    log_error: bool | None = None
    log_verbose_level: int | None = Field(None, ge=0, le=1)
    log_format: Literal["default"] | None = None
