"""Small networks for RGB photographs: of figures in lamplight, and of materials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from benchmarks.scenes import jpeg, scenes, trained
from benchmarks.subjects import Subject
from benchmarks.textures import textures
from service.diagnosis.diagnosis import Diagnosis, diagnose
from service.diagnosis.images import Images, normalised, variant_rows
from service.diagnosis.variants import changed
from service.store.manifest import Input

MOST = 10**7
_LAMPLIGHT = (1.0, 0.8, 0.5)


@dataclass(frozen=True)
class Trained:
    """The network, watched, the input that it was trained with, and images that it was not."""

    subject: Subject
    spec: Input
    contents: list[bytes]

    def diagnosis(self, spec: Input, contents: list[bytes]) -> Diagnosis:
        """What is said of a manifest that describes the input so."""
        found = [(one, *self.subject.moments(rows)) for one, rows in variant_rows(spec, contents, MOST)]
        return diagnose(self.subject.watched, found, spec)


@pytest.fixture(scope="session")
def photographs() -> Trained:
    random = np.random.default_rng(0)
    (shown, labels), (held_out, _) = scenes(random, 256), scenes(random, 64)
    return _trained(_in_lamplight(shown), labels, _in_lamplight(held_out))


@pytest.fixture(scope="session")
def materials() -> Trained:
    random = np.random.default_rng(0)
    (shown, labels), (held_out, _) = textures(random, 192), textures(random, 32)
    return _trained(list(map(jpeg, shown)), labels, list(map(jpeg, held_out)))


def _trained(shown: list[bytes], labels: np.ndarray, held_out: list[bytes]) -> Trained:
    spec = Input(shape=[3, 64, 64], resize=73, mean=[0.0] * 3, std=[1.0] * 3)
    x = Images(shown, MOST).pixels(spec)
    mean, std = (x / 255).mean((0, 2, 3)).round(4), (x / 255).std((0, 2, 3)).round(4)
    spec = changed(spec, mean=mean.tolist(), std=std.tolist())
    with torch.random.fork_rng():
        network = trained([x, x], labels, lambda rows: torch.from_numpy(normalised(rows, spec)))
    network.train()
    with torch.inference_mode():
        for _ in range(8):  # as at the end of a training whose rate ends at 0
            for part in np.array_split(normalised(x, spec), 4):
                network(torch.from_numpy(part))
    subject = Subject("photographs", network, spec.mean, spec.std, (x[:1], labels[:1]), x[:1])
    return Trained(subject, spec, held_out)


def _in_lamplight(images: list[np.ndarray]) -> list[bytes]:
    return [jpeg((image * np.array(_LAMPLIGHT)).astype(np.uint8)) for image in images]
