"""The diagnosis: which variant of the preprocessing fits what the norms saw in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.diagnosis.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from service.diagnosis.variant import Fault, Variant
    from service.inspection.watched import Watched
    from service.store.manifest import Input

Verdict = Literal["fits", "fault", "unclear"]

FEW = 4
"""With fewer images there is no telling how sure a difference is: only gross faults are named."""
_GROSS = 1.0
"""What a gross fault costs in score, at least."""
_SURE = 3.0
"""Standard errors of a gain."""
_EXPLAINED = 0.5
"""Of the score as configured, at least: a variant that is a little better explains nothing."""
_AS_GOOD = 0.35
"""Of the largest gain, at most: what stays behind it by less is as good."""
_FITS = 0.5

_LEAST: dict[Fault, float] = {
    "division by 255": 0.3,
    "inversion": 0.2,
    "channel order": 0.06,
    "resize": 0.08,
    "interpolation": 0.08,
    "mean and std": 0.3,
}
"""The faults, the more particular first, and the least gain that tells. Images that are darker than those of
training, or training on augmented ones, look like another mean and std, and another mean and std makes good
for much; nothing looks like another order."""


@dataclass(frozen=True)
class VariantScore:
    """How far the images, taken so, are from training."""

    variant: Variant
    score: float
    """The mean over the watched norms, each as drift has it. The last see sizes and colours best; what other
    content adds to them, it adds to every variant."""
    gain: float
    """By how much that is less than as configured."""
    gain_error: float
    """The standard error of `gain`, over the images; infinite for a single one."""


@dataclass(frozen=True)
class Diagnosis:
    """What is said."""

    images: int
    verdict: Verdict
    likely: VariantScore | None
    """The variant that explains the misfit, where the verdict is `fault`."""
    meaning: str
    fix: tuple[str, ...]
    """Lines for `[input]` of `model.toml`."""
    variants: tuple[VariantScore, ...]
    """All of them, the best first."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "images": self.images,
            "verdict": self.verdict,
            "fault": self.likely.variant.fault if self.likely else None,
            "likely": self.likely.variant.name if self.likely else None,
            "meaning": self.meaning,
            "fix": list(self.fix),
            "variants": [
                {"name": each.variant.name, "meaning": each.variant.meaning, "score": each.score}
                for each in self.variants
            ],
        }


def diagnose(
    watched: Watched, seen: Iterable[tuple[Variant, np.ndarray, np.ndarray]], configured: Input
) -> Diagnosis:
    """The diagnosis of images, at least one.

    `seen`: each variant, the configured one first, with the mean and variance over each row's pixels of every
    watched channel, `[N, C]`. A baseline is no help: it was recorded through the configured preprocessing.
    """
    samples = [(variant, Sample.of(watched, mean, var)) for variant, mean, var in seen]
    base = samples[0][1]
    scored = [VariantScore(variant, one.score, *one.gain_on(base)) for variant, one in samples]
    likely = _likely(scored, base.rows)
    ranked = tuple(sorted(scored, key=lambda each: each.score))
    if likely is not None:
        fix = likely.variant.fix(configured)
        return Diagnosis(base.rows, "fault", likely, likely.variant.meaning, fix, ranked)
    verdict, meaning = _without_fault(scored, base.rows)
    return Diagnosis(base.rows, verdict, None, meaning, (), ranked)


def _likely(scored: Sequence[VariantScore], rows: int) -> VariantScore | None:
    """The variant that explains most of the misfit; of several as good, the most particular fault's."""
    score = scored[0].score
    better = [each for each in scored[1:] if _is_better(each, score, rows)]
    if not better:
        return None
    least = min(each.score for each in better)
    as_good = [each for each in better if each.score <= least + _AS_GOOD * (score - least)]
    order = list(_LEAST)
    return min(as_good, key=lambda each: (order.index(_fault(each)), each.score))


def _is_better(each: VariantScore, configured: float, rows: int) -> bool:
    least = _LEAST[_fault(each)]
    if rows < FEW:
        return each.gain >= max(_GROSS, _EXPLAINED * configured)
    return each.gain >= max(least, _EXPLAINED * configured) and each.gain >= _SURE * each.gain_error


def _fault(each: VariantScore) -> Fault:
    if each.variant.fault is None:
        raise AssertionError("what is configured is no fault of itself")
    return each.variant.fault


def _without_fault(scored: Sequence[VariantScore], rows: int) -> tuple[Verdict, str]:
    if rows < FEW:
        return "unclear", f"No gross fault shows. Subtler ones take more images: {FEW} at least, better 16."
    if scored[0].score > _FITS:
        return "unclear", (
            "The images are far from what the network was trained on, and no variant fits much better: "
            "they show something else, or something is wrong that is none of these."
        )
    return "fits", "The configured preprocessing fits; no variant fits much better."
