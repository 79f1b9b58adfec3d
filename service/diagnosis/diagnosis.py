"""The diagnosis: which variant of the preprocessing fits what the norms saw in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.diagnosis.sample import Sample
from service.diagnosis.variant import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from service.diagnosis.variant import Fault, Variant
    from service.inspection.watched import Watched
    from service.store.manifest import Input

Verdict = Literal["fits", "fault", "unclear"]

FEW = 4
"""With fewer images there is no telling how sure a difference is: only gross faults are named."""
_SURE = 3.0
"""Standard errors of a gain, where it shows that something is wrong."""
_NAMED = 2.0
"""Standard errors of a gain, where another variant has shown it and this one may be what is wrong. The images
in which much is wrong make most of a gain, so that even the right variant's is less sure than it looks."""
_AS_GOOD = 0.35
"""Of the largest gain, at most: what stays behind it by less is as good."""
_FITS = 0.5


@dataclass(frozen=True)
class _Bar:
    """What a variant has to gain."""

    least: float
    share: float
    """Of the score as configured: a variant that is a little better explains nothing."""


_MOST = 2 / 3
"""The share of what is exact: the right order or size leaves what sampling leaves. Another mix of classes
looks like another order or size too, but not so through and through."""
_BARS: dict[Fault, _Bar] = {
    "division by 255": _Bar(0.3, 0.5),
    "inversion": _Bar(0.2, 0.5),
    "channel order": _Bar(0.06, _MOST),
    "resize": _Bar(0.08, _MOST),
    "interpolation": _Bar(0.08, _MOST),
    "mean and std": _Bar(0.3, 0.5),
}
"""The faults, the more particular first. Images that are darker than those of training, or training on
augmented ones, look like another mean and std, and another mean and std makes good for much."""
_REVERSED = _Bar(1.0, _MOST)
"""For the order with mean and std in reverse too. Every channel keeps its mean, so that only mixtures of
colours tell, and those are another with every mix of classes."""
_OWN = _Bar(0.8, 0.5)
"""For the images' own mean and std, which make good for the light and the colours of these very images."""
_GROSS = _Bar(1.0, 0.5)
"""For every variant, where there are few images."""


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
    configured = scored[0]
    better = [each for each in scored[1:] if _is_better(each, configured, rows)]
    sure = [each for each in better if rows < FEW or each.gain >= _SURE * each.gain_error]
    if not sure:
        return None
    least = min(each.score for each in sure)
    as_good = [each for each in better if each.score <= least + _AS_GOOD * (configured.score - least)]
    order = list(_BARS)
    return min(as_good, key=lambda each: (order.index(_fault(each)), each.score))


def _is_better(each: VariantScore, configured: VariantScore, rows: int) -> bool:
    bar = _GROSS if rows < FEW else _bar(each, configured)
    enough = each.gain >= max(bar.least, bar.share * configured.score)
    return enough and (rows < FEW or each.gain >= _NAMED * each.gain_error)


def _bar(each: VariantScore, configured: VariantScore) -> _Bar:
    if each.variant.name == OWN:
        return _OWN
    return _REVERSED if _is_reversed_too(each.variant, configured.variant) else _BARS[_fault(each)]


def _is_reversed_too(variant: Variant, configured: Variant) -> bool:
    return variant.fault == "channel order" and variant.spec.mean != configured.spec.mean


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
