"""Health flags: what is odd about one norm, by rules with a number and a limit; numpy only, never torch."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from service.inspection.examined_norm import ExaminedNorm, over
from service.inspection.flag import Flag, FlagName, Level, Surroundings
from service.inspection.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping

RECTIFIERS = ("relu", "relu6")
"""Activations that make 0 of everything below 0."""
_LISTED = 16
_NORMAL = NormalDist()


def flags(
    vectors: Mapping[str, np.ndarray],
    eps: float,
    around: Surroundings | None = None,
    thresholds: Thresholds | None = None,
) -> list[Flag]:
    """The flags of a norm with the stored `vectors` `[C]`, the gravest first; most norms have none."""
    if not vectors:
        return []
    norm = ExaminedNorm.of(vectors, eps, around or Surroundings(), thresholds or Thresholds())
    with np.errstate(all="ignore"):  # a broken checkpoint is looked at as it is
        raised = [flag for rule in _RULES if (flag := rule(norm))]
    return sorted(raised, key=lambda flag: ("error", "warning", "note").index(flag.level))


def _flag(
    name: FlagName, level: Level, concerned: np.ndarray, value: float, limit: float, message: str
) -> Flag:
    channels = np.flatnonzero(concerned)
    return Flag(
        flag=name,
        level=level,
        channels=channels[:_LISTED].tolist(),
        count=len(channels),
        value=float(np.nan_to_num(value)),  # a ratio may be too large for float64, and JSON has no infinity
        limit=limit,
        message=message,
    )


def _channels(concerned: np.ndarray) -> str:
    count = int(concerned.sum())
    return "1 channel" if count == 1 else f"{count} channels"


# --- the rules


def _non_finite(norm: ExaminedNorm) -> Flag | None:
    concerned = ~norm.is_sound
    if not concerned.any():
        return None
    message = f"NaN, infinity or a negative variance in {_channels(concerned)}"
    return _flag("non_finite", "error", concerned, concerned.sum(), 0, message)


def _untrained(norm: ExaminedNorm) -> Flag | None:
    if norm.mean is None or norm.var is None or norm.mean.any() or (norm.var != 1).any():
        return None
    message = "all running means are exactly 0 and all running variances exactly 1, as before any training"
    return _flag("untrained", "warning", np.ones(len(norm.mean), bool), 1, 1, message)


def _constant_channel(norm: ExaminedNorm) -> Flag | None:
    if norm.weight is None:
        return None
    limit, ratio = norm.limits.constant_channel, over(norm.size, norm.median(norm.size))
    concerned = norm.is_sound & ((norm.size == 0) | ((ratio < limit) & (norm.median(norm.size) > 0)))
    if not concerned.any():
        return None
    constants = norm.bias[concerned]
    message = (
        f"{_channels(concerned)} with a weight below {limit:g} of the layer's median: whatever comes in, "
        f"out comes the bias, {_span(constants)}{_rectified(norm, constants)}"
    )
    return _flag("constant_channel", "note", concerned, ratio[concerned].min(), limit, message)


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _rectified(norm: ExaminedNorm, constants: np.ndarray) -> str:
    if norm.around.activation not in RECTIFIERS:
        return ""
    cut = int((constants <= 0).sum())
    return f"; the {norm.around.activation} behind makes {cut} of {len(constants)} of these 0"


def _eps_dominates(norm: ExaminedNorm) -> Flag | None:
    if norm.var is None:
        return None
    concerned = norm.is_sound & (norm.var < norm.eps)
    if not concerned.any():
        return None
    smallest = norm.var[concerned].min()
    message = f"{_channels(concerned)} with a running variance below eps, down to {smallest:.3g}"
    loud, limit = concerned & (norm.gain_ratio > norm.limits.gain), norm.limits.gain
    if not loud.any():
        return _flag("eps_dominates", "note", concerned, smallest, norm.eps, message)
    largest = norm.gain_ratio[loud].max()
    message += f"; {loud.sum()} of them with a gain up to {largest:.3g} times the layer's median"
    return _flag("eps_dominates", "warning", loud, largest, limit, message)


def _never_fires(norm: ExaminedNorm) -> Flag | None:
    limits = norm.limits
    if norm.around.activation not in RECTIFIERS:
        return None
    height = np.nan_to_num(norm.bias / norm.size, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    concerned = norm.is_sound & (height < _NORMAL.inv_cdf(limits.never_fires))
    if not concerned.any():
        return None
    smallest, share = _NORMAL.cdf(float(height[concerned].min())), concerned.sum() / len(concerned)
    message = (
        f"{_channels(concerned)} ({share:.0%} of the layer) positive with a probability below "
        f"{limits.never_fires:g}, down to {smallest:.2g}: the {norm.around.activation} behind gives 0"
    )
    if share > limits.never_fires_share:
        return _flag("never_fires", "warning", concerned, share, limits.never_fires_share, message)
    return _flag("never_fires", "note", concerned, smallest, limits.never_fires, message)


def _outlier_gain(norm: ExaminedNorm) -> Flag | None:
    limit, concerned = norm.limits.gain, norm.gain_ratio > norm.limits.gain
    if not concerned.any():
        return None
    largest = norm.gain_ratio.max()
    message = f"{_channels(concerned)} with a gain up to {largest:.3g} times the layer's median"
    return _flag("outlier_gain", "note", concerned, largest, limit, message)


def _precision(norm: ExaminedNorm) -> Flag | None:
    lost = norm.around.lost
    if lost is None:
        return None
    overflowing, limit = lost.overflowing > 0, norm.limits.lost_weights
    share = lost.vanishing / np.maximum(lost.nonzero, 1)
    concerned = overflowing | (share > limit)
    if not concerned.any():
        return None
    where = f"{_channels(concerned)} of {lost.layer}: {lost.precision}"
    if overflowing.any():
        count = int(lost.overflowing.sum())
        flag = _flag(
            "precision", "warning", overflowing, count, 0, f"{count} folded weights overflow in {where}"
        )
    else:
        count = int(lost.vanishing[concerned].sum())
        message = f"{count} folded weights that are not 0 become 0 in {where}"
        flag = _flag("precision", "warning", concerned, share.max(), limit, message)
    return flag if lost.is_own else flag.model_copy(update={"channels": []})


_RULES = (
    *(_non_finite, _untrained, _constant_channel, _eps_dominates),
    *(_never_fires, _outlier_gain, _precision),
)
