"""Settings: `FOLDSERVE_*` in the environment, or flags of the same names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.batching.policy import Limits
from service.errors import InvalidConfiguration
from service.inspection.thresholds import Thresholds

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "FOLDSERVE_"

_NUMBER = "[1-9][0-9]{0,17}"
_HOST = r"(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?)"
_VERSIONS = f"^(latest(:{_NUMBER})?|all|{_NUMBER}(,{_NUMBER})*)$"


class Settings(BaseSettings):
    """Every setting with its default; frozen, and handed down as an argument, never global."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port; 0 takes a free one.")
    allowed_hosts: Annotated[str, Field(pattern=f"^({_HOST}( *, *{_HOST})*)?$")] = Field(
        "",
        description="Names to be asked under, separated by commas; *: any; empty: localhost, or any.",
    )
    model_store: Path = Field(Path("model_store"), description="Folder that holds <model>/<version>/.")
    models: str = Field("", description="Names of the models to serve, separated by commas; empty: all.")
    versions: Annotated[str, Field(pattern=_VERSIONS)] = Field(
        "latest",
        description="Versions of each model to serve: latest, latest:N, all, or numbers such as 1,4.",
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="When what is served changes: never, with the store, or when an admin asks for it.",
    )
    poll_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        15.0, description="Seconds between two looks at the model store; with model_control=poll only."
    )
    load_timeout_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        1800.0, description="Seconds that loading one version may take; 0: any number."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    precision: Literal["manifest", "float32", "tf32", "bfloat16", "float16"] = Field(
        "manifest",
        description="Serving precision; manifest: what each model's manifest says; tf32: on CUDA only.",
    )
    workers: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Processes that speak HTTP; 0: one for every four cores, at least one."
    )
    split_cores: Literal["auto", "always", "never"] = Field(
        "auto", description="Give the engine and the workers cores of their own; auto: where a GPU computes."
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="Threads of one computation on the CPU; 0: as many as the process owns cores."
    )
    tune: bool = Field(
        False, description="Measure at start-up how many threads, up to that, suit each model."
    )
    max_batch: Annotated[int, Field(ge=0, le=4096)] = Field(
        0,
        description="Rows computed at once; 0: the manifest's, fewer where a CPU is slower with more.",
    )
    max_delay_ms: Annotated[float, Field(ge=0, le=10_000)] = Field(
        0.0, description="How long the oldest waiting rows may wait for company; 0: not at all."
    )
    max_waiting_rows: Annotated[int, Field(gt=0)] = Field(
        2048, description="Rows that may wait; more are refused with 429."
    )
    max_request_rows: Annotated[int, Field(gt=0)] = Field(512, description="Rows in one request.")
    arena_mb: Annotated[int, Field(gt=0, le=65536)] = Field(
        256, description="MiB for the rows and answers of one worker's requests; taken when they are used."
    )
    max_body_mb: Annotated[float, Field(gt=0, le=4096)] = Field(32.0, description="MiB in one body.")
    max_inflated_mb: Annotated[float, Field(ge=0, le=4096)] = Field(
        0.0, description="MiB in one compressed body once it is inflated; 0: as max_body_mb."
    )
    max_pixels: Annotated[int, Field(gt=0)] = Field(
        64_000_000, description="Pixels of one encoded image, read from its header."
    )
    max_connections: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        4096, description="Connections that one worker holds; further ones are answered with 503."
    )
    timeout_ms: Annotated[int, Field(gt=0, le=3_600_000)] = Field(
        30_000, description="Deadline of a request that names none, and the longest it may name."
    )
    header_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        10.0, description="Seconds for the headers of a request, from the connection on."
    )
    body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        20.0, description="Seconds for a body, and one more for each 16 KiB of it."
    )
    idle_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        75.0, description="Seconds without a request, or without reading an answer, on a connection."
    )
    drain_timeout_s: Annotated[int, Field(gt=0, le=3600)] = Field(
        60, description="How long a shutdown waits for what was accepted."
    )
    hang_timeout_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        60.0, description="A process that does nothing for so long is replaced."
    )
    start_timeout_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        300.0, description="A process that does not come up in so long is replaced; loading does not count."
    )
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = Field(
        5,
        description="Deaths of a process within ten minutes after which it is replaced; one more is the end.",
    )
    keys: str = Field(
        "",
        repr=False,
        description="Keys, each ROLE:NAME:KEY, separated by commas; only in the environment.",
    )
    keys_file: Path | None = Field(
        None, description="File of keys, a line each, read anew when it changes; lines with # are comments."
    )
    flag_constant_channel: Annotated[float, Field(ge=0, lt=1)] = Field(
        1e-3, description="A weight below this fraction of its layer's median makes a channel constant."
    )
    flag_gain: Annotated[float, Field(ge=1)] = Field(
        20.0, description="A gain of more times the layer's median than this is an outlier."
    )
    flag_never_fires: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-3, description="A channel never fires that is positive with a lower probability."
    )
    flag_never_fires_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="More of a layer's channels that never fire than this are a warning."
    )
    flag_lost_weights: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="More of a channel's folded weights that become 0 than this are a warning."
    )
    drift: Literal["off", "input", "all"] = Field(
        "all",
        description="Norms at which a sample of live rows is looked at: the first third, or the last too.",
    )
    drift_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.01, description="Of the device's time for that, at most."
    )
    drift_threshold: Annotated[float, Field(gt=0, le=10)] = Field(
        0.05, description="The least score that counts as drift from a baseline."
    )
    baselines: str = Field(
        "", description="Folder for baselines, <model>/<version>/ in it; empty: beside the weights."
    )
    access_log: bool = Field(False, description="Log a line for each request, on standard output.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    log_format: Literal["text", "json"] = Field("text", description="How it is logged.")

    @property
    def limits(self) -> Limits:
        """The limits of the queue."""
        return Limits(max_waiting_rows=self.max_waiting_rows, max_delay_s=self.max_delay_ms / 1000)

    @property
    def thresholds(self) -> Thresholds:
        """The limits of the health flags."""
        return Thresholds(
            constant_channel=self.flag_constant_channel,
            gain=self.flag_gain,
            never_fires=self.flag_never_fires,
            never_fires_share=self.flag_never_fires_share,
            lost_weights=self.flag_lost_weights,
        )

    @property
    def max_body_bytes(self) -> int:
        """The limit of a body in bytes."""
        return int(self.max_body_mb * 1024 * 1024)

    @property
    def max_inflated_bytes(self) -> int:
        """The limit in bytes of a body that came compressed, once it is inflated."""
        return int((self.max_inflated_mb or self.max_body_mb) * 1024 * 1024)

    @property
    def max_held_bytes(self) -> int:
        """The limit of all bodies that one worker holds: what its arena holds, or one whole body."""
        return max(self.arena_mb * 1024 * 1024, self.max_body_bytes, self.max_inflated_bytes)

    @property
    def arena_slots(self) -> int:
        """The slots of one worker's arena."""
        return self.arena_mb * 1024 * 1024 // 4096

    @property
    def host_names(self) -> list[str]:
        """The names in `allowed_hosts`, in lower case."""
        return [name.strip().lower().removesuffix(".") for name in self.allowed_hosts.split(",") if name]

    @property
    def model_names(self) -> list[str]:
        """The names in `models`."""
        return [name.strip() for name in self.models.split(",") if name.strip()]


Source = Literal["default", "environment", "option"]


def sources(flags: dict[str, Any]) -> dict[str, Source]:
    """Where the value of each setting comes from that `read` finds with the same flags."""
    around = {name.upper() for name in os.environ}

    def one(name: str) -> Source:
        if name in flags:
            return "option"
        return "environment" if f"{PREFIX}{name.upper()}" in around else "default"

    return {name: one(name) for name in Settings.model_fields}


def read(flags: dict[str, Any]) -> Settings:
    """The settings from the environment, overridden by `flags`.

    Raises `InvalidConfiguration` that names every setting that is unknown or wrong.
    """
    unknown = [
        name
        for name in os.environ
        if name.upper().startswith(PREFIX) and name[len(PREFIX) :].lower() not in Settings.model_fields
    ]
    if unknown:
        raise InvalidConfiguration(f"unknown setting in the environment: {', '.join(sorted(unknown))}")
    try:
        return Settings(**flags)
    except ValidationError as error:
        wrong = [f"{PREFIX}{str(e['loc'][0]).upper()}: {_why(e)}" for e in error.errors()]
        raise InvalidConfiguration("; ".join(wrong)) from None


def _why(wrong: ErrorDetails) -> str:
    """What pydantic says, but for a pattern, which nobody can read, what the setting is."""
    if wrong["type"] != "string_pattern_mismatch":
        return wrong["msg"]
    return f"this has not the form of: {Settings.model_fields[str(wrong['loc'][0])].description}"
