"""Samples: some values of some nodes of a computation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

_AT_MOST = 4096
"""Values of a node, evenly spread over it."""


class Samples:
    """What is kept of the first row of a computation that is otherwise forgotten call by call."""

    def __init__(self, wanted: Iterable[str], rows: int) -> None:
        """`wanted`: the names of nodes; `rows`: how many are computed together."""
        self._wanted = frozenset(wanted)
        self._rows = rows
        self.values: dict[str, Tensor] = {}
        """By a node's name up to 4,096 of its values, float64."""

    def take(self, node: str, value: object) -> None:
        """Keep some of the value of a node, where it is wanted and a tensor."""
        if node in self._wanted and isinstance(value, Tensor):
            flat = value[: -(-len(value) // self._rows)].reshape(-1)
            spread = flat[:: -(-len(flat) // _AT_MOST)]
            self.values[node] = spread.to(torch.float64, copy=True)  # a view would keep the whole value
