"""Model stores made for a run: an architecture with random weights and statistics."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from service.store import manifest as manifests
from service.store.manifest import Input, Manifest, Output, Weights
from service.store.model_store import ModelStore, StoredModel


def publish(folder: Path, architecture: str, *, resize: int | None = None) -> StoredModel:
    """Version 1 of the architecture in the store `folder`, named as the architecture is.

    Images are resized to `resize` pixels on the shorter side and cropped, where it is given.
    """
    import torch

    from service.network import catalog
    from service.network.random_stats import randomise
    from service.store import weights

    torch.manual_seed(0)
    network = catalog.build(architecture, {})
    randomise(network, 0)
    shape = list(catalog.input_shape(network))

    def fill(version: Path) -> None:
        digest = weights.write(version / "weights.safetensors", network.state_dict())
        manifest = Manifest(
            architecture=architecture,
            input=Input(
                shape=shape,
                colour="rgb" if shape[0] == 3 else "grayscale",
                resize=resize,
                mean=[0.5] * shape[0],
                std=[0.25] * shape[0],
            ),
            outputs=[Output()],
            weights=Weights(sha256=digest),
        )
        manifests.write(version / manifests.FILE_NAME, manifest)

    store = ModelStore(folder)
    store.publish(architecture, 1, fill)
    return store.open(architecture)


def publish_with_reference(folder: Path, architecture: str, *, resize: int | None = None) -> StoredModel:
    """As `publish`, with the float64 answers of the proof beside the weights, as `train-digits` does it."""
    from service.engine.unfolded import write_reference

    stored = publish(folder, architecture, resize=resize)
    write_reference(stored)
    return stored
