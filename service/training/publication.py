"""Publication: what is written of a trained digits network into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from service.store import manifest as manifests
from service.store import weights
from service.store.manifest import Input, Manifest, Output, Serving, Weights
from service.training import split as splits
from service.training.descent import BATCH_ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from service.training.split import DigitsSplit

ARCHITECTURE = "digits"

_LABELS_FILE = "labels.txt"
_WEIGHTS_FILE = "weights.safetensors"
_EXAMPLE_FILE = "example.png"
_LABELS = tuple("0123456789")


def input_of(pixels: Tensor) -> Input:
    """How the rows become network inputs; their mean and deviation are rounded here, before training."""
    values = pixels.double() / 255
    return Input(
        shape=list(pixels.shape[1:]),
        colour="grayscale",
        mean=[round(values.mean().item(), 4)],
        std=[round(values.std(correction=0).item(), 4)],
        example=_EXAMPLE_FILE,
    )


def provenance(split: DigitsSplit, correct: int, *, epochs: int, seed: int) -> dict[str, Any]:
    """What the manifest says of where the model comes from, and how well it does."""
    rows = len(split.held_out_labels)
    return {
        "data": {
            "name": "Optical Recognition of Handwritten Digits, the test half, as bundled with scikit-learn",
            "authors": "E. Alpaydin and C. Kaynak, 1998",
            "source": "https://archive.ics.uci.edu/dataset/80",
            "licence": "CC BY 4.0",
            "pixels": "8 bits: round(value * 255 / 16)",
            "rows": len(split.train_labels) + rows,
            "split": f"stratified by label, seed {splits.SEED}; writers are not kept apart",
        },
        "training": {
            "rows": len(split.train_labels),
            "epochs": epochs,
            "batch": BATCH_ROWS,
            "seed": seed,
            "torch": str(torch.__version__),
        },
        "held_out": {"rows": rows, "correct": correct, "accuracy": round(correct / rows, 4)},
    }


def fill(network: nn.Module, row: Input, provenance: dict[str, Any], example: Tensor, folder: Path) -> None:
    """Write a version into `folder`; `example` is one of the images, uint8 `[1, H, W]`."""
    Image.fromarray(example[0].numpy()).save(folder / _EXAMPLE_FILE)
    (folder / _LABELS_FILE).write_text("".join(f"{label}\n" for label in _LABELS), encoding="utf-8")
    manifest = Manifest(
        architecture=ARCHITECTURE,
        input=row,
        outputs=[Output(labels=_LABELS_FILE)],
        weights=Weights(
            file=_WEIGHTS_FILE, sha256=weights.write(folder / _WEIGHTS_FILE, network.state_dict())
        ),
        serving=Serving(max_batch=64),
        provenance=provenance,
    )
    manifests.write(folder / manifests.FILE_NAME, manifest)
