"""A served model in the words of the Open Inference Protocol, from its card and from what was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.telemetry import Statistics
from service.web.schemas_v2 import (
    AllStatistics,
    ConfigInput,
    ConfigOutput,
    Duration,
    DynamicBatching,
    InferenceStatistics,
    InstanceGroup,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    TensorMetadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.engine.card import ModelCard
    from service.engine.client import EngineClient
    from service.settings import Settings
    from service.telemetry import Telemetry

PLATFORM = "pytorch_foldserve"


def metadata(card: ModelCard, client: EngineClient) -> ModelMetadata:
    """The model's tensors, with their batch axis, and all its versions."""
    facts = card.facts
    row, output = facts.manifest.input, facts.manifest.output
    return ModelMetadata(
        name=facts.model,
        versions=[
            str(other.facts.version) for other in client.editions.cards() if other.facts.model == facts.model
        ],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=row.name, datatype="FP32", shape=[-1, *row.shape])],
        outputs=[TensorMetadata(name=output.name, datatype="FP32", shape=[-1, *facts.output_shape])],
    )


def config(card: ModelCard, settings: Settings) -> ModelConfig:
    """The configuration in force; shapes are without the batch axis."""
    facts = card.facts
    row, output = facts.manifest.input, facts.manifest.output
    return ModelConfig(
        name=facts.model,
        platform=PLATFORM,
        backend="foldserve",
        max_batch_size=settings.max_request_rows,
        input=[ConfigInput(name=row.name, data_type="TYPE_FP32", format="FORMAT_NCHW", dims=row.shape)],
        output=[
            ConfigOutput(
                name=output.name,
                data_type="TYPE_FP32",
                dims=facts.output_shape,
                label_filename=output.labels or "",
            )
        ],
        dynamic_batching=DynamicBatching(
            preferred_batch_size=[facts.max_batch],
            max_queue_delay_microseconds=round(settings.max_delay_ms * 1000),
        ),
        instance_group=[
            InstanceGroup(
                name=facts.device, kind="KIND_CPU" if facts.device.startswith("cpu") else "KIND_GPU", count=1
            )
        ],
    )


def statistics(cards: Iterable[ModelCard], telemetry: Telemetry) -> AllStatistics:
    """What was counted of these versions, in all processes."""
    found = telemetry.statistics()
    return AllStatistics(model_stats=[_one(card, found.get(card.key, Statistics())) for card in cards])


def _one(card: ModelCard, found: Statistics) -> ModelStatistics:
    facts = card.facts
    succeeded = found.counts.get("success", 0)

    def took(count: int, phase: str) -> Duration:
        return Duration(count=count, ns=round(found.seconds.get(phase, 0.0) * 1e9))

    return ModelStatistics(
        name=facts.model,
        version=str(facts.version),
        last_inference=round(found.last * 1000),
        inference_count=found.rows,
        execution_count=found.batches,
        inference_stats=InferenceStatistics(
            success=took(succeeded, "success"),
            fail=took(found.counts.get("fail", 0), "fail"),
            **{
                phase: took(succeeded, phase)
                for phase in ("queue", "compute_input", "compute_infer", "compute_output")
            },
            cache_hit=Duration(count=0, ns=0),
            cache_miss=Duration(count=0, ns=0),
        ),
        batch_stats=[],
    )
