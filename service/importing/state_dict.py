"""State dicts: the names that a checkpoint gives its tensors, brought to the names that a network has."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from service.errors import InvalidWeights
from service.store.weights import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

_COMPILED = "_orig_mod."
_AVERAGES_COUNTED = "n_averaged"
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)")


def fitted(
    tensors: Mapping[str, Tensor], expected: Collection[str], prefix: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names that a network has, `expected`, and what was done to get there.

    Wrappers (DataParallel, torch.compile, Lightning's modules) put a prefix before every name; it goes, and
    what lies outside of it is left out. Raises `InvalidWeights` where two prefixes fit, or no name has the
    given one. What does not fit then, is for `service.store.weights.assign` to name.
    """
    named, remarks = _unwrapped(tensors, expected)
    chosen = _prefix(named, expected) if prefix is None else _given(named, prefix)
    if not chosen:
        return named, remarks
    inside = {name.removeprefix(chosen): value for name, value in named.items() if name.startswith(chosen)}
    outside = [name for name in named if not name.startswith(chosen)]
    remarks.append(f"The prefix {chosen!r} was removed from the names of the weights.")
    if outside:
        remarks.append(f"Left out, being outside of {chosen!r}: {listed(outside)}.")
    return inside, remarks


def _unwrapped(
    tensors: Mapping[str, Tensor], expected: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Names without what torch.compile and weight averaging add, and DenseNet's in their present spelling."""
    named, remarks = dict(tensors), []
    if _AVERAGES_COUNTED in named and _AVERAGES_COUNTED not in expected:
        del named[_AVERAGES_COUNTED]
        remarks.append("The weights are averages over the training (n_averaged).")
    if any(_COMPILED in name for name in named):
        named = {name.replace(_COMPILED, ""): value for name, value in named.items()}
        remarks.append(f"{_COMPILED!r}, which torch.compile adds, was removed from the names of the weights.")
    if any(_DENSENET.search(name) for name in named):
        named = {_DENSENET.sub(r"\1\2", name): value for name, value in named.items()}
        remarks.append("Names of an older DenseNet (norm.1) were brought to their present spelling (norm1).")
    return named, remarks


def _prefix(named: Mapping[str, Tensor], expected: Collection[str]) -> str:
    """The prefix behind which all of the network's names are found, or at least half of them; else none."""
    counted = {name for name in expected if not name.endswith("num_batches_tracked")}  # some are without it
    found = Counter(start for name in named for start in _starts(name, counted))
    most = max(found.values(), default=0)
    if 2 * most < len(counted):
        return ""
    best = [start for start, count in found.items() if count == most]
    if "" in best:
        return ""
    if len(best) > 1:
        raise InvalidWeights(
            f"the network's names are there behind several prefixes: {', '.join(best)}; "
            "choose one with --prefix"
        )
    return best[0]


def _starts(name: str, expected: Collection[str]) -> list[str]:
    ends = [0, *(match.end() for match in re.finditer(r"\.", name))]
    return [name[:end] for end in ends if name[end:] in expected]


def _given(named: Mapping[str, Tensor], prefix: str) -> str:
    prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    if not any(name.startswith(prefix) for name in named):
        raise InvalidWeights(f"no name begins with {prefix!r}; there are {listed(list(named))}")
    return prefix
