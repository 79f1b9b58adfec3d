"""Row independence: one caller's answer must not depend on another's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph.chains import batch_statistics_norms
from service.graph.constants import Constants
from service.graph.names import module_name
from service.graph.parity import relative_error
from service.graph.precision import compute

if TYPE_CHECKING:
    from torch import Tensor, fx

    from service.graph.capture import CapturedGraph

_EXACT = 1e-9


def refuse_batch_statistics(captured: CapturedGraph) -> None:
    """Raise `ModelRefused` where the graph shows norms that use batch statistics at inference."""
    found = batch_statistics_norms(captured.module.graph, Constants(captured.module))
    dependent = [module_name(node) or node.name for node in found]
    if dependent:
        raise ModelRefused(
            f"norms use batch statistics at inference ({', '.join(dependent)}): "
            "one caller's answer would depend on another's input"
        )


def refuse_dependent_rows(module: fx.GraphModule, rows: Tensor, together: Tensor) -> None:
    """Raise `ModelRefused` where the first row or the last alone is answered otherwise than `together`.

    `together` is what the graph answers to `rows` `[N, ...]` in float64.
    """
    try:
        alone = [compute(module, row, torch.float64) for row in (rows[:1], rows[-1:])]
    except (RuntimeError, IndexError, ValueError) as error:
        raise ModelRefused(f"the network cannot compute one row alone: {error}") from error
    each = len(together) // len(rows)
    expected = [together[:each], together[-each:]]
    if [list(answer.shape) for answer in alone] != [list(answer.shape) for answer in expected]:
        raise ModelRefused(
            f"one row alone is answered with the shape {list(alone[0].shape)} and not "
            f"{list(expected[0].shape)}: perhaps a squeeze() drops its batch axis"
        )
    if not relative_error(torch.cat(expected), torch.cat(alone)) <= _EXACT:
        raise ModelRefused(
            "an answer depends on the other rows of its batch, as with batch statistics at inference"
        )
