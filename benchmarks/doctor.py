"""What the doctor names, and whom it accuses without reason: docs/doctor.md's tables, in some minutes.

    python benchmarks/doctor.py [--networks shipped,plain,scenes,textures,...] [--draws 200] [--images 16]

The networks are in `patients.py`. A fault is planted by writing it into the manifest; the images stay what
they are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from patients import MOST, PATIENTS

from service.diagnosis.diagnosis import diagnose
from service.diagnosis.images import Images
from service.diagnosis.variants import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patients import Patient

    from service.diagnosis.diagnosis import Diagnosis
    from service.store.manifest import Input


def planted(spec: Input) -> Iterator[tuple[str, Input]]:
    """Manifests that are wrong, by what is wrong with them."""
    mean, std = np.array(spec.mean), np.array(spec.std)

    def one(fault: str, mean: np.ndarray, std: np.ndarray) -> tuple[str, Input]:
        return fault, changed(spec, mean=mean.tolist(), std=std.tolist())

    yield one("no mean and std", 0 * mean, std / std)
    yield one("mean and std twice", mean + mean * std, std * std)
    yield one("divided by 255 twice", mean * 255, std * 255)
    yield one("not divided by 255", mean / 255, std / 255)
    yield one("-1 to 1", 0 * mean + 0.5, 0 * std + 0.5)
    if spec.colour == "grayscale":
        yield one("inverted", 1 - mean, -std)
        yield "resized to 10 and cropped", changed(spec, resize=10)
        return
    yield "BGR for RGB", changed(spec, colour="bgr")
    yield "BGR, mean and std too", changed(spec, colour="bgr", mean=spec.mean[::-1], std=spec.std[::-1])
    yield "squeezed, not cropped", changed(spec, resize=None)
    for resize in sorted({64, 73, 80, 96} - {spec.resize or 0}):
        yield f"resized to {resize}, not {spec.resize}", changed(spec, resize=resize)
    yield "nearest", changed(spec, interpolation="nearest")


class Examination:
    """Diagnoses of draws from a patient's images, under one manifest."""

    def __init__(self, patient: Patient, spec: Input) -> None:
        self._patient = patient
        self._spec = spec
        self._images = Images(patient.contents, MOST)
        # The mutable state: what the norms saw of all images, by variant.
        self._seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def accuracy(self) -> float:
        x = torch.from_numpy(self._images.rows(self._spec))
        with torch.inference_mode():
            answers = torch.cat([self._patient.subject.network(part).argmax(1) for part in x.split(64)])
        return float((answers.numpy() == self._patient.labels).mean())

    def diagnosis(self, drawn: np.ndarray) -> Diagnosis:
        images = self._images.part(drawn)
        found = []
        for variant in images.variants(self._spec):
            if "own" in variant.name:
                mean, var = self._patient.subject.moments(images.rows(variant.spec))
            else:
                mean, var = (part[drawn] for part in self._of_all(variant.spec))
            found.append((variant, mean, var))
        return diagnose(self._patient.subject.watched, found, self._spec)

    def _of_all(self, spec: Input) -> tuple[np.ndarray, np.ndarray]:
        key = spec.model_dump_json()
        if key not in self._seen:
            self._seen[key] = self._patient.subject.moments(self._images.rows(spec))
        return self._seen[key]


def count(examination: Examination, draw: Callable[[], np.ndarray], draws: int) -> str:
    said: Counter[str] = Counter()
    scores = []
    for _ in range(draws):
        found = examination.diagnosis(draw())
        said[found.likely.variant.fault or "" if found.likely else found.verdict] += 1
        scores += [each.score for each in found.variants if each.variant.fault is None]
    words = ", ".join(f"{name} {number}" for name, number in said.most_common())
    return f"{np.median(scores):.3f}, {max(scores):.3f} | {words}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(PATIENTS))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks.split(","):
        patient = PATIENTS[name](given.seed)
        random = np.random.default_rng(given.seed)
        every = np.arange(len(patient.contents))
        classes = int(patient.labels.max()) + 1

        def draw(pool: np.ndarray = every, random: np.random.Generator = random) -> np.ndarray:
            return random.choice(pool, given.images, replace=False)

        def half(patient: Patient = patient, classes: int = classes) -> np.ndarray:
            kept = random.choice(classes, classes // 2, replace=False)  # noqa: B023 - used before it changes
            return draw(np.flatnonzero(np.isin(patient.labels, kept)))

        print(f"\n## {name}, {given.images} images\n\n| manifest | right | score, median and most | said |")
        right = Examination(patient, patient.spec)
        print(f"| right | {right.accuracy():.1%} | {count(right, draw, given.draws)} |", flush=True)
        print(f"| right, half of the classes | | {count(right, half, given.draws)} |", flush=True)
        for fault, spec in planted(patient.spec):
            one = Examination(patient, spec)
            found = count(one, draw, max(1, given.draws // 4))
            print(f"| {fault} | {one.accuracy():.1%} | {found} |", flush=True)


if __name__ == "__main__":
    main()
