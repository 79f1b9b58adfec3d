"""The sample: one row that somebody asks about against the reference, norm by norm, as JSON has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.inspection.shift import Reference, worst
from service.inspection.window import judge_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.inspection.watched import Watched


def sample_drift(moments: np.ndarray, watched: Watched, baseline: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of `moments` `[2, C]`, the means and variances over one row's pixels at the watched norms.

    `baseline` is as a model card has it; where it is empty, the frozen statistics are the reference.
    """
    mean, var = baseline.get("mean", watched.mean), baseline.get("var", watched.var)
    judged = judge_rows(moments[:1], moments[1:], Reference(mean, var, np.inf), watched)
    layers = [
        {
            "name": norm.name,
            "part": norm.part,
            "score": judged.layers[0, number],
            "typical": baseline["row_scores"][number] if baseline else None,
            "worst": [
                {
                    "channel": channel - int(watched.starts[number]),
                    "delta": judged.shift.delta[0, channel],
                    "lambda": judged.shift.log_ratio[0, channel],
                }
                for channel in worst(judged.shift.divergence[0], watched, number)
            ],
        }
        for number, norm in enumerate(watched.norms)
    ]
    return {"reference": "baseline" if baseline else "frozen", "layers": layers}
