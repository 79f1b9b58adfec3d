"""What the peers compute with: the stored network as PyTorch runs it, and bodies turned into its inputs."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from service.plan import openmp

openmp.calm(os.environ)  # as foldserve does it: where cores are shared, threads that spin only hurt

import numpy as np
import orjson
import torch
from PIL import Image
from torch import nn

from service.network import catalog
from service.network.adopt import norms
from service.store import weights
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.manifest import Manifest


class Network:
    """A version of a model as its manifest describes it, for rows on the CPU.

    `variant`: `eager`, PyTorch as the network comes; `channels-last`, in the layout that convolutions want;
    `folded`, that with foldserve's fold, run call by call.
    """

    def __init__(self, store: str, model: str, variant: str) -> None:
        stored = ModelStore(Path(store)).open(model)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.manifest: Manifest = stored.manifest
        self.labels = stored.labels()
        self._is_channels_last = variant != "eager"
        self._run = self._network(_built(self.manifest, weights.read(stored)), variant)
        for rows in (1, 2, 4, 8):
            self(np.zeros((rows, *self.manifest.input.shape), np.float32))

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The best class of each float32 row `[N, C, H, W]`."""
        inputs = torch.from_numpy(rows)
        if self._is_channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        scores, indices = self._run(inputs).softmax(1).max(1)
        return [
            {"label": self._label(index), "index": index, "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]

    def row(self, body: bytes, media_type: str, dtype: str) -> np.ndarray:
        """The float32 network input `[C, H, W]` that a body stands for."""
        shape = self.manifest.input.shape
        if media_type == "image/jpeg":
            return self._normalised(self._pixels(body))
        if media_type == "application/json":
            return np.asarray(orjson.loads(body)["inputs"], np.float32).reshape(shape)
        if dtype == "uint8":
            return self._normalised(np.frombuffer(body, np.uint8).reshape(shape))
        return np.frombuffer(body, "<f4").reshape(shape)

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else str(index)

    def _pixels(self, body: bytes) -> np.ndarray:
        spec = self.manifest.input
        image = Image.open(io.BytesIO(body)).convert({"rgb": "RGB", "grayscale": "L"}[spec.colour])
        _, height, width = spec.shape
        if spec.resize is None:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        else:
            scale = spec.resize / min(image.size)
            size = round(image.width * scale), round(image.height * scale)
            image = image.resize(size, Image.Resampling.BILINEAR)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)

    def _normalised(self, pixels: np.ndarray) -> np.ndarray:
        mean, std = (
            np.asarray(values, np.float32)[:, None, None]
            for values in (self.manifest.input.mean, self.manifest.input.std)
        )
        return (pixels / np.float32(255) - mean) / std

    def _network(self, network: nn.Module, variant: str) -> Callable[[torch.Tensor], torch.Tensor]:
        if variant == "eager":
            return _with_torchs_norms(network)
        if variant == "channels-last":
            return _with_torchs_norms(network).to(memory_format=torch.channels_last)
        from service.graph import fold

        folded = fold(network, torch.zeros(2, *self.manifest.input.shape)).module
        return folded.to(memory_format=torch.channels_last)


def _built(manifest: Manifest, tensors: dict[str, torch.Tensor]) -> nn.Module:
    network = catalog.build(manifest.architecture, manifest.options)
    weights.assign(network, tensors)
    return network


def _with_torchs_norms(network: nn.Module) -> nn.Module:
    """The fused kernel that people run, not our definition."""
    for name, norm in norms(network).items():
        kind = getattr(nn, type(norm).__name__)
        theirs = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        theirs.load_state_dict(norm.state_dict())
        network.set_submodule(name, theirs)
    return network.eval()
