"""The model card: everything that is ever asked about a loaded model, written once, read without torch.

A card is one safetensors blob in a sealed, anonymous file: the stored vectors of every norm under
`<layer>/<vector>`, those of the baseline under names without a slash, and the facts as JSON in the
blob's metadata. Another process can read it from its descriptor.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load, save

from service.errors import UnknownLayer
from service.inspection.layer_stats import LayerStats
from service.inspection.watched import Part, Watched, WatchedNorm
from service.store.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.batching.job import Wanted

_COMPARED = "running_mean", "running_var", "weight"
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class ModelKey(NamedTuple):
    """One version of one model."""

    model: str
    version: int


class WatchedLayer(BaseModel):
    """A norm at whose input rows can be looked at; its vectors are those of the layer of that name."""

    model_config = ConfigDict(frozen=True)

    name: str
    part: Part
    rows: float
    """How many independent rows its statistics are worth."""
    has_pixels: bool = True
    """Whether a row has several values for each channel there."""


class ModelFacts(BaseModel):
    """What is said of one loaded version, without the vectors."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    manifest: Manifest
    labels: list[str] | None
    output_shape: list[int]
    """Of one row's answer."""
    device: str
    precision: str
    max_batch: int
    seconds_per_row: float
    """Of a row of pixels in a batch of a few, warm."""
    threads: int
    """How many compute a batch on the CPU; 0 on CUDA."""
    tuned: bool
    """Whether these were measured."""
    preprocessing: str
    """Where pixels become network inputs: in `one pass`, or in the weights of the `first layers`."""
    memory: dict[str, int]
    """Bytes that the plan holds: `weights`, `packed` copies of them, CUDA `graphs`."""
    torch_version: str
    layers: list[LayerStats]
    """One per norm, in the order in which the network computes them."""
    fold: dict[str, Any]
    """The fold report with its parity, as `FoldReport.as_dict` gives it."""
    reference: Literal["stored", "computed"] = "computed"
    """Where the float64 answers of the proof came from: the store, or this load."""
    plan: list[dict[str, Any]] = Field(default_factory=list)
    """The calls of the plan in order, each with its name, op, epilogue, shape of a row and backend."""
    watched: list[WatchedLayer] = Field(default_factory=list)
    """In network order; empty where nothing is looked at."""
    moments_shape: list[int] | None = None
    """`[2, C]`: of what the watched norms see of one row, the means and variances of all their channels."""
    seconds: dict[str, float]
    """How long each step of loading took."""

    @property
    def key(self) -> ModelKey:
        """The model and version that this describes."""
        return ModelKey(self.model, self.version)

    def shape_of(self, wanted: Wanted) -> list[int] | None:
        """Of what one row gives; None where it gives no moments."""
        return self.output_shape if wanted == "answers" else self.moments_shape


@dataclass(frozen=True, eq=False)
class ModelCard:
    """One loaded version: its facts, and per norm the stored vectors, bit for bit.

    Two are the same only as objects: a version that is loaded anew gets a new one.
    """

    facts: ModelFacts
    vectors: Mapping[str, Mapping[str, np.ndarray]]
    baseline: Mapping[str, np.ndarray] = field(default_factory=dict)
    """`mean` and `var`, float64 `[C]` over the watched channels, and `row_scores`, `[watched norms]`; empty
    where no baseline was recorded."""

    @cached_property
    def watched(self) -> Watched:
        """The watched norms with what training left in them."""
        return Watched(tuple(map(self._watched, self.facts.watched)))

    @property
    def key(self) -> ModelKey:
        """The model and version that this card describes."""
        return self.facts.key

    def layer(self, name: str) -> LayerStats:
        """The norm of that name; raises `UnknownLayer`."""
        for layer in self.facts.layers:
            if layer.name == name:
                return layer
        raise UnknownLayer(f"model {self.facts.model!r} has no norm {name!r}")

    def _watched(self, layer: WatchedLayer) -> WatchedNorm:
        stored, stats = self.vectors[layer.name], self.layer(layer.name)
        mean, var, weight = (
            stored[kind] if kind in stored else np.ones(stats.num_features, np.float32) for kind in _COMPARED
        )
        return WatchedNorm(layer.name, layer.part, mean, var, weight, stats.eps, layer.rows, layer.has_pixels)


def write(card: ModelCard) -> int:
    """The descriptor of a sealed file that holds the card; the caller closes it."""
    tensors = {
        f"{layer}/{name}": np.ascontiguousarray(vector)  # the writer takes memory as it lies
        for layer, vectors in card.vectors.items()
        for name, vector in vectors.items()
    }
    order = json.dumps(list(tensors))  # which the format itself does not keep
    tensors |= {name: np.ascontiguousarray(vector) for name, vector in card.baseline.items()}
    # Python's own JSON: it keeps what is not finite, which a broken checkpoint may hold.
    blob = save(tensors, metadata={"facts": json.dumps(card.facts.model_dump()), "order": order})
    descriptor = os.memfd_create(f"card-{card.facts.model}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(blob)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def read(descriptor: int) -> ModelCard:
    """The card behind a descriptor, which stays open."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
        blob = mapped[:]
    (header_bytes,) = struct.unpack_from("<Q", blob)
    metadata = _Header.model_validate_json(blob[8 : 8 + header_bytes]).metadata
    vectors: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    loaded = load(blob)
    for name in json.loads(metadata["order"]):
        layer, _, kind = name.rpartition("/")
        vectors[layer][kind] = loaded.pop(name)
    return ModelCard(ModelFacts.model_validate(json.loads(metadata["facts"])), dict(vectors), loaded)


class _Header(BaseModel):
    """The JSON that opens a safetensors blob; its tensors are read by safetensors itself."""

    metadata: dict[str, str] = Field(alias="__metadata__")
