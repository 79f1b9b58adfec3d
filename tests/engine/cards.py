"""Model cards as an engine could write them."""

from __future__ import annotations

from typing import Any

from service.engine.card import ModelCard, ModelFacts
from service.store.manifest import Input, Manifest, Output, Weights


def facts(model: str = "digits", version: int = 1, **more: Any) -> ModelFacts:
    """Of a model that takes `[1, 8, 8]` and answers `[10]`, ten milliseconds a row."""
    manifest = Manifest(
        architecture="digits",
        input=Input(shape=more.pop("shape", [1, 8, 8]), colour="grayscale", mean=[0.0], std=[1.0]),
        outputs=[Output()],
        weights=Weights(sha256="0" * 64),
    )
    settings: dict[str, Any] = {
        "labels": None,
        "output_shape": [10],
        "device": "cpu",
        "precision": "float32",
        "threads": 0,
        "tuned": False,
        "preprocessing": "one pass",
        "memory": {},
        "max_batch": 4,
        "seconds_per_row": 0.01,
        "torch_version": "2",
        "layers": [],
        "fold": {},
        "seconds": {},
    }
    return ModelFacts(model=model, version=version, manifest=manifest, **{**settings, **more})


def card(model: str = "digits", version: int = 1, **more: Any) -> ModelCard:
    """The same as a card without vectors."""
    return ModelCard(facts(model, version, **more), {})
