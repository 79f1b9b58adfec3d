"""Packing: the weights in oneDNN's own layouts, one tensor for each call and layout.

The layout that oneDNN wants depends on how many rows and threads there are. Weights in another one are
brought into it at every call, which can cost more than the call.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# With a torch that cannot tell two layouts apart, the first one is used for any number of rows.
_layout = getattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md", None)


class Packing:
    """What has been packed so far."""

    def __init__(self) -> None:
        self._packed: dict[str, list[Tensor]] = defaultdict(list)

    def keep(self, call: str, packed: Tensor) -> tuple[str, Tensor]:
        """A name for the packed weights of a call, and the tensor: the first one of the same layout."""
        known = self._packed[call]
        for position, other in enumerate(known):
            if _is_alike(packed, other):
                return f"_packed_{call}_{position}", other
        known.append(packed)
        return f"_packed_{call}_{len(known) - 1}", packed


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two packed tensors have the same layout."""
    return _layout is None or torch.equal(_layout(one), _layout(other))
